"""The mean of several segments of one shape, as federated averaging takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def weighted_average(
    states: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Return the weighted mean of segments' weights and buffers.

    Parameters
    ----------
    states : sequence of mapping
        Tensors by name, the same names and shapes in each.
    weights : sequence of float
        Not negative; their sum is taken as one. A single state comes back bit for bit.

    Returns
    -------
    dict of str to tensor
        Integer buffers (counters) are the first segment's: a mean would not be a count.

    Raises
    ------
    ValueError
        If there is nothing to average.
    """
    total = sum(weights)
    if len(states) != len(weights) or not total > 0:
        raise ValueError(f"{len(states)} segments cannot be averaged with weights {list(weights)}")
    shares = [weight / total for weight in weights]
    mean = {}
    for name, first in states[0].items():
        mean[name] = torch.zeros_like(first) if first.is_floating_point() else first.clone()
        if first.is_floating_point():
            for state, share in zip(states, shares, strict=True):
                mean[name] += state[name] * share
    return mean
