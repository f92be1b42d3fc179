"""How far the outputs of two models are apart: the mean Jensen-Shannon divergence, in bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from split_unlearning.evaluation.outputs import Outputs


def jensen_shannon(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of each row of two tables (Lin 1991), shape (n,).

    Both tables hold probabilities, shape (n, labels); each row is made to sum to 1. The divergence
    is in bits, from 0, equal, to 1, nothing in common.

    Raises
    ------
    ValueError
        If the shapes differ, or a row is no distribution.
    """
    if one.shape != other.shape or one.ndim != 2:
        raise ValueError(f"probabilities of the shapes {one.shape} and {other.shape}")
    p, q = (_distributions(table) for table in (one, other))
    middle = (p + q) / 2
    nats = (rel_entr(p, middle).sum(axis=1) + rel_entr(q, middle).sum(axis=1)) / 2
    # Rounding may leave the range by a last bit.
    bits: NDArray[np.float64] = np.clip(nats / np.log(2), 0, 1)
    return bits


def mean_divergence(one: Outputs, other: Outputs) -> float | None:
    """Return the mean divergence of two models' outputs on the samples that both were given.

    Samples are matched by client, split and id. In bits; None if they have no sample in common.
    """
    _, left, right = np.intersect1d(
        _names(one), _names(other), assume_unique=True, return_indices=True
    )
    if not len(left):
        return None
    return float(jensen_shannon(one.probabilities[left], other.probabilities[right]).mean())


def _distributions(table: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = table.astype(np.float64)
    sums = wide.sum(axis=1, keepdims=True)
    if (wide < 0).any() or not (sums > 0).all():
        raise ValueError("probabilities are at least 0, and not all of a row's are 0")
    return np.asarray(wide / sums)


def _names(outputs: Outputs) -> NDArray[np.void]:
    columns = np.stack([outputs.client, outputs.split, outputs.ids], axis=1)
    named = np.ascontiguousarray(columns).view([("client", "i8"), ("split", "i8"), ("id", "i8")])
    return named.ravel()
