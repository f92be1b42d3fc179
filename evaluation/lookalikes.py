"""Lookalikes: masked labels whose records cannot be told apart by their means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2
from sklearn.metrics.pairwise import euclidean_distances

from split_unlearning.evaluation.clusterings import joined_up
from split_unlearning.evaluation.observed import CanonicalView, Labels, Points

# Of taking any pair of one real label for two, over all pairs (Bonferroni).
_LEVEL = 0.01


def differences(received: CanonicalView) -> tuple[Points, Points, Points]:
    """Return how far the means of every two masked labels are apart, and how far chance puts them.

    Where a real label's records are copied or dealt out at random, its masked labels have one
    distribution, so that their means differ by sampling alone, whatever the noise. For a client
    that sent a and b records under two masked labels, with the pooled covariance S, the squared
    distance of the means then has the mean ``f tr(S)`` and about the variance ``2 f^2 tr(S^2)``,
    where ``f = 1/a + 1/b``. How tr(S^2) goes with tr(S) is taken to be the same for all masked
    labels of a client. Summed over the clients that sent under both.

    Returns the squared distance, and its mean and variance under one distribution, each of shape
    (L, L). A mean of zero with a distance of zero stands where nothing can be said: no client in
    common, or one record each.
    """
    shape = (len(received.names),) * 2
    distance, mean, variance = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for sent in received.sent:
        freedom = sent.sizes[:, None] + sent.sizes - 2
        known = freedom > 0
        trace = (sent.scatters[:, None] + sent.scatters) / np.where(known, freedom, 1)
        by_chance = np.where(known, (1 / sent.sizes[:, None] + 1 / sent.sizes) * trace, 0)
        apart = euclidean_distances(sent.means, squared=True)
        both = np.ix_(sent.labels, sent.labels)
        distance[both] += np.where(known, apart, 0)
        mean[both] += by_chance
        variance[both] += 2 * by_chance**2 * sent.evenness
    return distance, mean, variance


def alike(received: CanonicalView) -> Labels:
    """Put masked labels together of which no two can be told apart.

    The squared distance of two means is compared with ``g * chi-square(h)`` of the same mean and
    variance (Box 1954); two are told apart if the chance of so large a distance is below 0.01 over
    all pairs (Bonferroni), or if no client sent under both. Clusters are joined in the order of
    distance by chance, the nearest first, while no two of their members can be told apart.
    """
    distance, mean, variance = differences(received)
    spread = mean > 0
    divisor = np.where(spread, 2 * mean, 1)
    scale = np.where(spread, np.maximum(variance, 1e-300) / divisor, 1)
    freedom = np.where(spread, mean / scale, 1)
    chance = np.where(spread, chi2.sf(distance / scale, freedom), distance == 0)
    labels = len(distance)
    apart = (chance < _LEVEL / max(1, labels * (labels - 1) // 2)) | ~_in_common(received)
    return _complete(np.where(apart, np.inf, _proportion(distance, mean)))


def alike_to(received: CanonicalView, number: int) -> Labels:
    """Join masked labels by how much less alike they are than chance has it, to so many clusters.

    The distance of two is the logarithm of 1 + their squared distance over its mean by chance; that
    of two without a client in common is 1 more than the largest. Joined on average.
    """
    distance, mean, _ = differences(received)
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


def _in_common(received: CanonicalView) -> NDArray[np.bool_]:
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
