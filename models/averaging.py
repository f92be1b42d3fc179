"""Federated averaging: the weighted mean of segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def weighted_average(
    states: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Return the weighted mean of segments' weights and buffers.

    Weights are divided by their sum. A single segment comes back bit for bit. Integer buffers
    (counters) are the first segment's, since a mean would not be a count.

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
