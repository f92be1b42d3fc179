"""Label matching: which masked labels belong to one real label, as SplitWiper+'s server may ask.

The attacks of the paper (section 6.4) and stronger ones, all on what the server received, and how
their answers are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from split_unlearning.evaluation import clusterings, linkage, lookalikes
from split_unlearning.evaluation.client_view import (
    joined_by_clients,
    same_clients,
    same_counts,
    within_same_clients,
)
from split_unlearning.evaluation.clusterings import by_elbow, by_gap, by_silhouette
from split_unlearning.evaluation.observed import CanonicalView, Labels, Observed, Points
from split_unlearning.foundations.seeds import derive_seed

_NOT_OBSERVED = -1


@dataclass(frozen=True)
class AttackScore:
    """How many clusters one attack found, and its `inclusive_accuracy` and `perfect_accuracy`.

    The name says how it works; an attack that knows the number of real labels ends in "q leaked".
    """

    name: str
    clusters: int
    inclusive: float
    perfect: float


def inclusive_accuracy(clusters: Labels, real_of: Labels) -> float:
    """Return the share of real labels whose masked labels all lie in one cluster.

    `clusters` and `real_of`, both of shape (E,), are the cluster and the real label of each masked
    label; the cluster is below 0 if nobody sent anything under it. Such a masked label cannot be
    clustered and counts for nothing; a real label none of whose masked labels was observed is not
    in play. A real label with one masked label is, and is always inclusive.

    Raises
    ------
    ValueError
        If the two do not have one length, or nothing was observed.
    """
    return float(np.mean([len(inside) == 1 for inside, _ in _reals_in_play(clusters, real_of)]))


def perfect_accuracy(clusters: Labels, real_of: Labels) -> float:
    """Return the share of real labels whose masked labels are exactly one cluster.

    Parameters and errors are those of `inclusive_accuracy`. A real label with one masked label is
    matched perfectly if that is a cluster of its own.
    """
    return float(np.mean([exact for _, exact in _reals_in_play(clusters, real_of)]))


def _reals_in_play(clusters: Labels, real_of: Labels) -> list[tuple[frozenset[int], bool]]:
    """Return the clusters that each real label lies in, and whether it is exactly one."""
    if clusters.shape != real_of.shape:
        raise ValueError(f"clusters has the shape {clusters.shape}; allowed: {real_of.shape}")
    seen = clusters >= 0
    if not seen.any():
        raise ValueError("no masked label was observed: there is nothing to score")
    found = []
    for real in np.unique(real_of[seen]):
        own = seen & (real_of == real)
        inside = frozenset(clusters[own].tolist())
        found.append(
            (
                inside,
                len(inside) == 1 and int(np.isin(clusters, list(inside)).sum()) == int(own.sum()),
            )
        )
    return found


def match_labels(
    observed: Observed, real_of: Labels, leaked_q: int, seed: int
) -> list[AttackScore]:
    """Run all attacks and score them.

    What each finds follows from what was received and the seed, under any naming of the masked
    labels and any order of the records, with any number of threads. The names:

    ``kmeans`` and ``birch`` cluster the masked labels by their mean record, the number of clusters
    by ``elbow`` (both as the paper), ``silhouette`` or ``gap``, or ``q leaked``: the true number is
    known. ``client sets`` takes masked labels that come from the same clients for one real label,
    or clusters each such group on its own. ``record counts`` takes those for one under which each
    client sent the same number of records. ``linkage`` finds copies of records by nearest
    neighbours. ``lookalikes`` puts masked labels together whose means differ by no more than
    sampling explains.

    Clustering works on as many points as there are masked labels. Records are compared along 64
    directions, at most 12,000 of each client (`linkage.pairings`): 30,000 records of 2,048 numbers
    from 5 clients take seconds.

    `real_of`, shape (E,), the real label of each masked label, scores the answers and nothing else.
    `leaked_q` is the number of real labels, at least 1, which the attacks that end in "q leaked"
    know; where there are fewer masked labels, or fewer that differ, it is theirs. Returns always
    the same attacks, in the same order.

    Raises
    ------
    ValueError
        If `leaked_q` is below 1, or a record came under a masked label that `real_of` lacks.
    """
    if leaked_q < 1:
        raise ValueError(f"leaked_q is {leaked_q}; allowed: at least 1")
    if int(observed.masked.max()) >= len(real_of):
        raise ValueError(
            f"a record came under the masked label {int(observed.masked.max())}; allowed: below "
            f"{len(real_of)}, the length of real_of"
        )
    return [
        AttackScore(
            name,
            len(np.unique(clusters[clusters != _NOT_OBSERVED])),
            inclusive_accuracy(clusters, real_of),
            perfect_accuracy(clusters, real_of),
        )
        for name, clusters in guesses(observed, len(real_of), leaked_q, seed).items()
    ]


def guesses(observed: Observed, masked_labels: int, leaked_q: int, seed: int) -> dict[str, Labels]:
    """Return what each attack finds, by its name, as `match_labels` scores it.

    Of E masked labels, the cluster of each, int64 of shape (E,); -1 if nothing came under it.
    """
    # Sums over several threads round differently with their number.
    with threadpool_limits(limits=1):
        received = CanonicalView(observed)
        found = _found(received, leaked_q, seed)
    everything = {}
    for name, clusters in found.items():
        everything[name] = np.full(masked_labels, _NOT_OBSERVED, dtype=np.int64)
        everything[name][received.names] = clusters
    return everything


def strongest(attacks: Sequence[AttackScore]) -> AttackScore:
    """Return the attack with the highest perfect accuracy.

    Of equals, that with the highest inclusive accuracy, then the first.
    """
    return max(attacks, key=lambda attack: (attack.perfect, attack.inclusive))


def _found(received: CanonicalView, leaked_q: int, seed: int) -> dict[str, Labels]:
    """Return the cluster of each masked label by each attack."""
    points = clusterings.upright(received.means)
    most = clusterings.distinct(points)
    tried, known = clusterings.numbers(most), min(leaked_q, most)
    start = derive_seed(seed, "kmeans")
    by_kmeans = clusterings.kmeans(points, sorted({*tried, known}), start)
    by_birch = clusterings.birch(points, sorted({*tried, known}), seed)
    paired = linkage.pairings(received, seed)
    return {
        "kmeans elbow": by_elbow(points, by_kmeans),
        "kmeans q leaked": by_kmeans[known],
        "birch elbow": by_elbow(points, by_birch),
        "birch q leaked": by_birch[known],
        "kmeans silhouette": by_silhouette(points, by_kmeans),
        "kmeans gap": by_gap(points, by_kmeans, clusterings.kmeans, start),
        "client sets": same_clients(received),
        "client sets silhouette": within_same_clients(
            received, partial(_silhouette_in_group, seed)
        ),
        "client sets gap": within_same_clients(received, partial(_gap_in_group, seed)),
        "client sets q leaked": joined_by_clients(received, leaked_q),
        "record counts": same_counts(received),
        "linkage": linkage.linked(paired),
        "linkage q leaked": linkage.linked_to(paired, leaked_q),
        "lookalikes": lookalikes.alike(received),
        "lookalikes q leaked": lookalikes.alike_to(received, leaked_q),
    }


def _silhouette_in_group(seed: int, described: Points, group: int) -> Labels:
    points = clusterings.upright(described)
    tried = clusterings.numbers(clusterings.distinct(points))
    found = clusterings.kmeans(points, tried, derive_seed(seed, "group", group))
    return by_silhouette(points, found)


def _gap_in_group(seed: int, described: Points, group: int) -> Labels:
    points = clusterings.upright(described)
    tried = clusterings.numbers(clusterings.distinct(points))
    start = derive_seed(seed, "group", group)
    return by_gap(points, clusterings.kmeans(points, tried, start), clusterings.kmeans, start)
