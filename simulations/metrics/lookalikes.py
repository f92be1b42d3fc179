"""Lookalikes: masked labels whose records cannot be told apart by their means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from simulations.metrics.clusterings import joined_up
from simulations.metrics.observed import Labels, Points, Received

# Of taking any pair of one real label for two, over all pairs (Bonferroni).
_LEVEL = 0.01


def differences(received: Received, projected: list[Points]) -> tuple[Points, Points, Points]:
    """Return how far the means of every two masked labels are apart, and how far chance puts them.

    Where a real label's records are copied or dealt out at random, its masked labels have one
    distribution, so that their means differ by sampling alone, whatever the noise. For a client
    that sent a and b records under two masked labels, with the pooled covariance S, the squared
    distance of the means then has the mean ``f tr(S)`` and about the variance ``2 f^2 tr(S^2)``,
    where ``f = 1/a + 1/b``; tr(S^2) is estimated without bias (Bai and Saranadasa 1996). Summed
    over the clients that sent under both, because each has a segment of its own.

    Parameters
    ----------
    received : Received
        What the server received.
    projected : list of ndarray of float64
        Its records, client by client (`Received.projected`).

    Returns
    -------
    distance, mean, variance : ndarray of float64, shape (L, L)
        The squared distance, and its mean and variance under one distribution. A mean of zero
        with a distance of zero where nothing can be said: no client in common, or one record each.
    """
    shape = (len(received.names),) * 2
    distance, mean, variance = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for rows, points in zip(received.rows_of_clients(), projected, strict=True):
        held, places = np.unique(received.label[rows], return_inverse=True)
        sizes = np.bincount(places).astype(np.float64)
        centres = np.stack([points[places == place].mean(axis=0) for place in range(len(held))])
        inside = points - centres[places]
        scatters = np.stack(
            [inside[places == place].T @ inside[places == place] for place in range(len(held))]
        ).reshape(len(held), -1)
        freedom = sizes[:, None] + sizes - 2
        known = freedom > 1
        freedom = np.where(known, freedom, 2)
        traces = (inside**2).sum(axis=1)
        traces = np.bincount(places, traces)
        trace = (traces[:, None] + traces) / freedom
        products = scatters @ scatters.T
        own = products.diagonal()
        squared = (own[:, None] + own + 2 * products) / freedom**2
        squared = (squared - trace**2 / freedom) * freedom**2 / ((freedom + 2) * (freedom - 1))
        # No covariance has less: all directions alike.
        squared = np.maximum(squared, trace**2 / points.shape[1])
        factor = 1 / sizes[:, None] + 1 / sizes
        apart = ((centres[:, None] - centres) ** 2).sum(axis=2)
        both = np.ix_(held, held)
        distance[both] += np.where(known, apart, 0)
        mean[both] += np.where(known, factor * trace, 0)
        variance[both] += np.where(known, 2 * factor**2 * squared, 0)
    return distance, mean, variance


def alike(received: Received, projected: list[Points]) -> Labels:
    """Put masked labels together of which no two can be told apart.

    The squared distance of two means is compared with ``g * chi-square(h)`` of the same mean and
    variance (Box 1954); two are told apart if the chance of so large a distance is below 0.01 over
    all pairs (Bonferroni), or if no client sent under both. Clusters are joined in the order of
    distance by chance, the nearest first, while no two of their members can be told apart.

    Parameters
    ----------
    received, projected
        As for `differences`.
    """
    distance, mean, variance = differences(received, projected)
    spread = mean > 0
    divisor = np.where(spread, 2 * mean, 1)
    scale = np.where(spread, np.maximum(variance, 1e-300) / divisor, 1)
    freedom = np.where(spread, mean / scale, 1)
    chance = np.where(spread, chi2.sf(distance / scale, freedom), distance == 0)
    labels = len(distance)
    apart = (chance < _LEVEL / max(1, labels * (labels - 1) // 2)) | ~_in_common(received)
    return _complete(np.where(apart, np.inf, _proportion(distance, mean)))


def alike_to(received: Received, projected: list[Points], number: int) -> Labels:
    """Join masked labels by how much less alike they are than chance has it, to so many clusters.

    The distance of two is the logarithm of 1 + their squared distance over its mean by chance; that
    of two without a client in common is 1 more than the largest. Joined on average.

    Parameters
    ----------
    received, projected
        As for `differences`.
    number : int
        Of clusters: Q, if it leaked.
    """
    distance, mean, _ = differences(received, projected)
    distances = np.log1p(_proportion(distance, mean))
    distances = np.where(_in_common(received), distances, distances.max() + 1)
    np.fill_diagonal(distances, 0)
    return joined_up(distances, number)


def _proportion(distance: Points, mean: Points) -> Points:
    # Without any spread what differs at all differs by more than any chance.
    bound = 1e9
    return np.minimum(
        np.divide(distance, mean, out=np.where(distance > 0, bound, 0.0), where=mean > 0), bound
    )


def _in_common(received: Received) -> NDArray[np.bool_]:
    sent = (received.counts > 0).astype(np.int64)
    return np.asarray(sent @ sent.T > 0)


def _complete(distances: Points) -> Labels:
    """Join the two nearest clusters, by their farthest members, until all are infinitely far."""
    far = distances.copy()
    np.fill_diagonal(far, np.inf)
    clusters = np.arange(len(far))
    while np.isfinite(far.min()):
        kept, gone = np.unravel_index(int(far.argmin()), far.shape)
        clusters[clusters == clusters[gone]] = clusters[kept]
        far[kept] = far[:, kept] = np.maximum(far[kept], far[gone])
        far[kept, kept] = np.inf
        far[gone] = far[:, gone] = np.inf
    return np.asarray(np.unique(clusters, return_inverse=True)[1], dtype=np.int64)
