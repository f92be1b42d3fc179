"""Clusterings of a few points, and how many clusters: elbow, silhouette, gap statistic."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, Birch, KMeans
from sklearn.metrics import silhouette_score

from split_unlearning.evaluation.observed import Labels, Points
from split_unlearning.foundations.seeds import derive_seed

# A clustering of points for each number of clusters asked for.
Clusterings = dict[int, Labels]
Method = Callable[[Points, list[int], int], Clusterings]

_STARTS = 10
_REFERENCES = 20
# Numbers of clusters that are tried; beyond as many, evenly spread ones.
_MOST_NUMBERS = 64


def upright(points: NDArray[np.float64]) -> Points:
    """Return points turned to their principal axes, centred, with a root mean square of 1.

    All distances keep their proportions: coordinates are not standardised one by one, because after
    a convolution they share a unit, and one that hardly varies (a unit that is almost always
    off) would be blown up to the weight of one that tells labels apart. Few points in many
    dimensions become points in few dimensions.

    Points of shape (n, d), n at least 1, become (n, at most min(n, d)), rounded to nine decimals,
    so that points that were equal are equal.
    """
    turned, lengths, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    placed = turned * lengths
    scale = float(np.sqrt((placed**2).sum(axis=1).mean()))
    # What sums leave of points that were all one point.
    if scale <= 1e-9 * float(np.abs(points).max(initial=0)):
        return np.zeros((len(points), 1))
    # Without the minus of a zero, which would make two of one point.
    return np.asarray(np.round(placed / scale, 9) + 0.0)


def distinct(points: Points) -> int:
    """Return how many different points there are: no method can find more clusters."""
    return len(np.unique(points, axis=0))


def numbers(most: int) -> list[int]:
    """Return the numbers of clusters to try, from 1 to `most`, at most 64 of them."""
    evenly = np.linspace(1, most, min(most, _MOST_NUMBERS)).round()
    return [int(number) for number in np.unique(evenly)]


def kmeans(points: Points, tried: list[int], seed: int) -> Clusterings:
    """Cluster points of shape (n, d) with KMeans, the best of ten starts each.

    `tried` holds numbers of clusters, each at most `distinct(points)`.
    """
    return {
        number: KMeans(number, n_init=_STARTS, random_state=derive_seed(seed, number) % 2**32)
        .fit_predict(points)
        .astype(np.int64)
        for number in tried
    }


def birch(points: Points, tried: list[int], seed: int) -> Clusterings:
    """Cluster with BIRCH: a tree of subclusters, then those subclusters (Ward).

    A subcluster's radius is at most a quarter of the median distance of a point to its nearest
    neighbour: the tree joins only what is far nearer than points usually are. scikit-learn's
    default of 0.5 would mean something else in each unit of the activations. Where that leaves
    fewer subclusters than clusters asked for, each is a cluster. Nothing is drawn: the seed is
    there for the form of a `Method`.
    """
    if distinct(points) == 1:
        return {number: np.zeros(len(points), dtype=np.int64) for number in tried}
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    radius = max(float(np.median(apart.min(axis=1))) / 4, 1e-9)
    tree = Birch(threshold=radius, n_clusters=None).fit(points)
    most = len(tree.subcluster_centers_)
    found = {}
    for number in tried:
        tree.set_params(n_clusters=number if most > 1 and number <= most else None).partial_fit()
        found[number] = tree.predict(points).astype(np.int64)
    return found


def joined_up(distances: Points, number: int) -> Labels:
    """Cluster by joining, again and again, the two clusters nearest to each other on average.

    Distances of shape (n, n) are symmetric, and zero on the diagonal. More clusters than there are
    points means each point alone. Returns the cluster of each point, shape (n,).
    """
    if number >= len(distances):
        return np.arange(len(distances))
    joining = AgglomerativeClustering(number, metric="precomputed", linkage="average")
    return np.asarray(joining.fit_predict(distances), dtype=np.int64)


def cost(points: Points, clusters: Labels) -> float:
    """Return the sum of the squared distances of points to the mean of their cluster."""
    return sum(
        float(((inside - inside.mean(axis=0)) ** 2).sum())
        for inside in (points[clusters == cluster] for cluster in np.unique(clusters))
    )


def by_elbow(points: Points, clusterings: Clusterings) -> Labels:
    """Choose the number of clusters at the elbow of the cost.

    The cost is drawn over the number of clusters, both axes scaled to [0, 1]; the elbow is the
    point that lies furthest below the chord from the first to the last, the smallest such number
    if several do. (The paper does not say how it finds it.)
    """
    tried = sorted(clusterings)
    costs = np.array([cost(points, clusterings[number]) for number in tried])
    if len(tried) < 3 or costs[0] <= costs[-1]:
        return clusterings[tried[0]]
    across = (np.array(tried) - tried[0]) / (tried[-1] - tried[0])
    below = 1 - across - (costs - costs[-1]) / (costs[0] - costs[-1])
    return clusterings[tried[int(np.argmax(below.round(9)))]]


def by_silhouette(points: Points, clusterings: Clusterings) -> Labels:
    """Choose the number of clusters with the largest mean silhouette (Rousseeuw 1987).

    It is defined for 2 to n - 1 clusters; where none was tried, the smallest number is chosen.
    """
    defined = [
        number
        for number, clusters in sorted(clusterings.items())
        if 1 < len(np.unique(clusters)) < len(points)
    ]
    if not defined:
        return clusterings[min(clusterings)]
    scores = [silhouette_score(points, clusterings[number]) for number in defined]
    return clusterings[defined[int(np.argmax(np.round(scores, 9)))]]


def by_gap(points: Points, clusterings: Clusterings, method: Method, seed: int) -> Labels:
    """Choose the number of clusters by the gap statistic (Tibshirani, Walther and Hastie 2001).

    ``Gap(k) = mean of log W*(k) - log W(k)``, where W is `cost` and W* that of 20 sets of points
    drawn uniformly from the box that holds the points along their principal axes (the paper's
    reference b). The smallest k is chosen with ``Gap(k) >= Gap(k') - s(k')``, where k' is the next
    number tried and ``s = sd(log W*) * sqrt(1 + 1/20)``; if there is none, the largest tried.
    Points are from `upright`; numbers with a cost of zero are left out; `method` made the
    clusterings.
    """
    costs = {number: cost(points, clusters) for number, clusters in clusterings.items()}
    tried = [number for number in sorted(costs) if costs[number] > 0]
    if len(tried) < 2:
        return clusterings[tried[0] if tried else min(clusterings)]
    draws = np.random.default_rng(derive_seed(seed, "references"))
    low, high = points.min(axis=0), points.max(axis=0)
    references = [draws.uniform(low, high, points.shape) for _ in range(_REFERENCES)]

    def gap(number: int) -> tuple[float, float]:
        logs = [
            np.log(cost(reference, method(reference, [number], derive_seed(seed, place))[number]))
            for place, reference in enumerate(references)
        ]
        bar = float(np.std(logs) * np.sqrt(1 + 1 / _REFERENCES))
        return float(np.mean(logs) - np.log(costs[number])), bar

    # One number after the other: most end at a small one, and references cost most of the time.
    before, _ = gap(tried[0])
    for number, following in pairwise(tried):
        after, bar = gap(following)
        if before >= after - bar:
            return clusterings[number]
        before = after
    return clusterings[tried[-1]]
