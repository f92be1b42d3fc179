"""Linkage: masked labels whose records are mutual nearest neighbours more often than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom
from sklearn.utils.extmath import randomized_svd

from split_unlearning.evaluation.clusterings import joined_up
from split_unlearning.evaluation.observed import CanonicalView, Labels, Points
from split_unlearning.foundations.seeds import derive_seed

# Of finding any pair of masked labels by chance, over all pairs (Bonferroni).
_LEVEL = 0.01
# Directions that records are compared along, and the records that those directions follow from.
_DIRECTIONS = 64
_RECORDS_FOR_DIRECTIONS = 2_000
# Records of one client that are paired, spread evenly over its masked labels.
_MOST_RECORDS = 12_000


@dataclass(frozen=True, eq=False)
class Pairings:
    """How often records of two masked labels are each other's nearest neighbour; all (L, L)."""

    pairs: Labels
    """Of all records of two masked labels, pairs that are each other's nearest neighbour; summed
    over clients."""
    crossing: Labels
    """Those of them that have one record under each of the two."""
    expected: Points
    """How many would, on average, if which of the two a record came under were drawn by lot."""


def pairings(received: CanonicalView, seed: int) -> Pairings:
    """Count, for every two masked labels, pairs of records that are each other's nearest neighbour.

    Only records of one client are compared: copies of a record come from the same client. Of each
    client at most 12,000 records take part, drawn evenly from its masked labels; where that leaves
    a share s of a masked label, the copies of a share s of those are among the others. Each client
    has a segment of its own, so its records are compared along directions of their own (`along`).
    """
    shape = (len(received.names),) * 2
    pairs, crossing = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    expected = np.zeros(shape)
    for client, rows in enumerate(received.rows_of_clients()):
        draws = np.random.default_rng(derive_seed(seed, "records to pair", client))
        label = received.label[rows]
        chosen = _chosen(label, draws)
        held, local = np.unique(label[chosen], return_inverse=True)
        ends = np.cumsum(np.bincount(local)).tolist()
        blocks = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        points = along(received.smashed[rows][chosen], derive_seed(seed, "directions", client))
        distance, neighbour = _nearest(points, blocks)
        for first in range(len(held)):
            for second in range(first + 1, len(held)):
                of_both, apart = _mutual(distance, neighbour, blocks, (first, second))
                sizes = [blocks[number].stop - blocks[number].start for number in (first, second)]
                everything = sum(sizes)
                chance = 2 * sizes[0] * sizes[1] / (everything * (everything - 1))
                for place in ((held[first], held[second]), (held[second], held[first])):
                    pairs[place] += of_both
                    crossing[place] += apart
                    expected[place] += of_both * chance
    return Pairings(pairs, crossing, expected)


def along(records: NDArray[np.float32], seed: int) -> Points:
    """Return records along the directions in which they differ most, less what is only noise.

    The first 64 principal directions, of 2,000 records if there are more: what is left out bounds
    the noise and the cost. Noise that is alike in all directions puts a floor under their
    variances: the mean of those that do not rise above what such noise alone reaches in so few
    records (Marchenko and Pastur). These are left out, unless all are of them; along the others
    records are shrunk by the share of the variance above the floor (Wiener's filter). Records of
    one client, shape (n, d), become (n, at most 64).
    """
    mean = np.asarray(records.mean(axis=0, dtype=np.float64))
    draws = np.random.default_rng(seed)
    few = min(len(records), _RECORDS_FOR_DIRECTIONS)
    chosen = records[np.sort(draws.choice(len(records), few, replace=False))] - mean
    dimensions, most = records.shape[1], min(_DIRECTIONS, few, records.shape[1])
    _, lengths, directions = randomized_svd(chosen, most, random_state=int(draws.integers(2**32)))
    variances = lengths**2
    shares = _shares_above_noise(variances, float((chosen**2).sum()), (few, dimensions))
    seen = directions.T * shares
    # In float32: a copy of all records in float64 would take twice the memory that they take.
    return np.asarray(records @ seen.astype(np.float32) - mean @ seen, dtype=np.float64)


def linked(found: Pairings) -> Labels:
    """Join masked labels that pair up above chance; what hangs together is a cluster.

    The null is that two masked labels cannot be told apart: which of the two a record came under
    is drawn by lot. Of T mutual nearest neighbours among their records (disjoint pairs, so nearly
    independent) the number with one record on each side is then binomial, each with the
    probability ``2 a b / (n (n - 1))`` for a and b of n records. Independent records of one real
    label meet this null and those of two lie below it: what lies above it is copies of the same
    records. Two are joined if the chance of so many is below 0.01 over all pairs (Bonferroni).
    """
    tested = found.pairs > 0
    chance = np.divide(found.expected, found.pairs, out=np.zeros(tested.shape), where=tested)
    above = binom.sf(found.crossing - 1, found.pairs, chance)
    joined = tested & (above < _LEVEL / max(1, int(tested.sum()) // 2))
    return np.asarray(connected_components(joined, directed=False)[1], dtype=np.int64)


def linked_to(found: Pairings, number: int) -> Labels:
    """Join masked labels by how often they pair up, until so many clusters are left.

    The distance of two is ``expected / (expected + crossing)``: about 1/3 for copies, 1/2 for
    independent records of one real label, 1 for what never pairs up. Joined on average.
    """
    both = found.expected + found.crossing
    distances = np.divide(found.expected, both, out=np.ones(both.shape), where=both > 0)
    np.fill_diagonal(distances, 0)
    return joined_up(distances, number)


def _shares_above_noise(variances: Points, total: float, shape: tuple[int, int]) -> Points:
    """Return the share of each variance, the largest first, that is not noise alike in all."""
    all_directions = min(shape)
    reach = (1 + np.sqrt(all_directions / max(shape))) ** 2
    above, floor = 0, total / all_directions
    # Leaving out what stands out lowers the floor, over which more may stand out.
    while above < len(variances) and variances[above] > floor * reach:
        above += 1
        floor = max(0.0, total - float(variances[:above].sum())) / max(1, all_directions - above)
    if not above:
        return np.ones(len(variances))
    kept = np.arange(len(variances)) < above
    return np.where(kept, 1 - floor / np.where(kept, variances, 1), 0)


def _chosen(label: Labels, draws: np.random.Generator) -> Labels:
    """Return records, at most as many of each masked label as leaves the bound, in their order."""
    most = max(2, _MOST_RECORDS // len(np.unique(label)))
    parts = np.split(np.arange(len(label)), np.flatnonzero(np.diff(label)) + 1)
    return np.concatenate(
        [
            part if len(part) <= most else np.sort(draws.choice(part, most, replace=False))
            for part in parts
        ]
    )


def _nearest(points: Points, blocks: list[slice]) -> tuple[Points, Labels]:
    """Return, of each point in each block, the nearest other point: how far, and which."""
    distance = np.full((len(points), len(blocks)), np.inf)
    neighbour = np.zeros((len(points), len(blocks)), dtype=np.int64)
    squares = (points**2).sum(axis=1)
    for block in blocks:
        apart = squares[block, None] + squares - 2 * points[block] @ points.T
        apart[np.arange(len(apart)), np.arange(block.start, block.stop)] = np.inf
        for number, other in enumerate(blocks):
            nearest = apart[:, other].argmin(axis=1)
            neighbour[block, number] = other.start + nearest
            distance[block, number] = apart[np.arange(len(apart)), other.start + nearest]
    return distance, neighbour


def _mutual(
    distance: Points, neighbour: Labels, blocks: list[slice], both: tuple[int, int]
) -> tuple[int, int]:
    """Return how many mutual nearest neighbours two blocks have together, and between them."""
    rows = np.concatenate([np.arange(blocks[number].start, blocks[number].stop) for number in both])
    # Where two are equally near, the one of the same block: chance is never overstated.
    mine = np.repeat([0, 1], [blocks[number].stop - blocks[number].start for number in both])
    near = distance[rows][:, both]
    own, other = near[np.arange(len(rows)), mine], near[np.arange(len(rows)), 1 - mine]
    crosses = other < own
    alone = np.isinf(own) & np.isinf(other)
    beside = neighbour[rows][:, both][np.arange(len(rows)), np.where(crosses, 1 - mine, mine)]
    place = np.full(int(rows.max()) + 1, -1)
    place[rows] = np.arange(len(rows))
    target = place[beside]
    mutual = ~alone & (target[target] == np.arange(len(rows)))
    return int(mutual.sum()) // 2, int((mutual & crosses).sum()) // 2
