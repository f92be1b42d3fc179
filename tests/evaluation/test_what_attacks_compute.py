"""The parts of the attacks, each against another way to compute it or a case that is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from split_unlearning.evaluation import client_view, clusterings, linkage, lookalikes
from split_unlearning.evaluation.observed import CanonicalView, Observed
from split_unlearning.foundations.seeds import derive_seed
from tests.evaluation.received import classes, masked

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def one_thread():
    with threadpool_limits(1):
        yield


def blobs(labels, of_each, dimensions, apart, seed=0):
    return clusterings.upright(classes(labels, of_each, dimensions, apart, seed)[0])


def clustered(points, method=clusterings.kmeans):
    return method(points, clusterings.numbers(clusterings.distinct(points)), 0)


def how_many(clusters):
    return len(np.unique(clusters))


# Numbers of clusters


def test_upright_points_are_as_far_apart_as_before():
    points = np.random.default_rng(0).normal(size=(9, 300)) * 7
    before = np.linalg.norm(points[:, None] - points, axis=2)
    turned = clusterings.upright(points)
    after = np.linalg.norm(turned[:, None] - turned, axis=2)
    assert turned.shape == (9, 9)
    np.testing.assert_allclose(after, before * (after[0, 1] / before[0, 1]), atol=1e-6)
    axes = turned.T @ turned
    np.testing.assert_allclose(axes, np.diag(axes.diagonal()), atol=1e-6)


@pytest.mark.parametrize("method", [clusterings.kmeans, clusterings.birch])
def test_the_elbow_of_groups_on_a_line(method):
    points = clusterings.upright(np.array([[0.0], [1], [2], [100], [101], [102], [200], [202]]))
    assert how_many(clusterings.by_elbow(points, clustered(points, method))) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 12))
def test_the_elbow_is_the_furthest_from_the_chord(seed, size):
    points = clusterings.upright(np.random.default_rng(seed).normal(size=(size, 2)))
    found = clustered(points, clusterings.birch)
    curve = np.array(
        [[number, clusterings.cost(points, found[number])] for number in sorted(found)]
    )
    curve = (curve - curve.min(axis=0)) / np.ptp(curve, axis=0)
    along = (curve[-1] - curve[0]) / np.linalg.norm(curve[-1] - curve[0])
    from_start = curve - curve[0]
    away = np.linalg.norm(from_start - np.outer(from_start @ along, along), axis=1)
    below = curve.sum(axis=1) < 1
    chosen = clusterings.by_elbow(points, found)
    furthest = found[sorted(found)[int(np.argmax(np.where(below, away, 0)))]]
    np.testing.assert_array_equal(chosen, furthest)


@pytest.mark.parametrize("dimensions", [2, 10])
def test_one_cluster_is_one_by_the_gap_statistic(dimensions):
    """The first case of the paper: uniform in a box."""
    points = clusterings.upright(np.random.default_rng(3).uniform(size=(60, dimensions)))
    found = clusterings.by_gap(
        points, clusterings.kmeans(points, [*range(1, 9)], 0), clusterings.kmeans, 0
    )
    assert how_many(found) == 1


def test_three_clusters_are_three_by_the_gap_statistic():
    """The second case of the paper: 25, 25 and 50 around (0, 0), (0, 5) and (5, -3)."""
    centres = np.repeat([[0.0, 0], [0, 5], [5, -3]], [25, 25, 50], axis=0)
    points = clusterings.upright(centres + np.random.default_rng(3).normal(size=(100, 2)))
    found = clusterings.by_gap(
        points, clusterings.kmeans(points, [*range(1, 9)], 0), clusterings.kmeans, 0
    )
    sizes = sorted(np.unique(found, return_counts=True)[1])
    np.testing.assert_allclose(sizes, [25, 25, 50], atol=3)


def test_the_silhouette_finds_separated_groups():
    points = blobs(4, 5, 12, apart=10)
    assert how_many(clusterings.by_silhouette(points, clustered(points))) == 4


def test_birch_finds_what_kmeans_finds_where_it_is_plain():
    points = blobs(5, 4, 12, apart=10)
    for method in (clusterings.kmeans, clusterings.birch):
        clusters = method(points, [5], 0)[5].reshape(5, 4)
        assert (clusters == clusters[:, :1]).all()
        assert how_many(clusters) == 5


@given(st.integers(1, 500))
def test_the_numbers_tried_are_few_and_go_all_the_way(most):
    tried = clusterings.numbers(most)
    assert (tried[0], tried[-1]) == (1, most)
    assert len(set(tried)) == len(tried) == min(most, 64)


# Linkage


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_pairings_are_the_mutual_nearest_neighbours(seed, clients):
    draws = np.random.default_rng(seed)
    label, client = draws.integers(4, size=60), draws.integers(clients, size=60)
    records = draws.normal(size=(60, 5)).astype(np.float32)
    received = CanonicalView(Observed(records, label, client))
    found = linkage.pairings(received, 0)
    labels = len(received.names)
    pairs, crossing = np.zeros((2, labels, labels), dtype=int)
    for of_client, rows in enumerate(received.rows_of_clients()):
        seen = np.zeros((60, 5))
        seen[rows] = linkage.along(received.smashed[rows], derive_seed(0, "directions", of_client))
        for first in range(labels):
            for second in set(range(labels)) - {first}:
                pool = np.isin(received.label, [first, second]) & (received.client == of_client)
                side = received.label[pool]
                if len(side) < 2 or len(set(side)) < 2:
                    continue
                nearest = (
                    NearestNeighbors(n_neighbors=1)
                    .fit(seen[pool])
                    .kneighbors(return_distance=False)[:, 0]
                )
                mutual = nearest[nearest] == np.arange(len(side))
                pairs[first, second] += mutual.sum() // 2
                crossing[first, second] += (mutual & (side != side[nearest])).sum() // 2
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_array_equal(found.crossing, crossing)


def test_directions_of_noise_are_left_out_and_those_of_records_are_kept():
    draws = np.random.default_rng(0)
    plane = np.linalg.qr(draws.normal(size=(100, 3)))[0].T
    records = draws.normal(size=(400, 3)) * [9, 6, 3] @ plane
    noisy = (records + draws.normal(size=records.shape)).astype(np.float32)
    seen = linkage.along(noisy, 0)
    assert np.linalg.matrix_rank(seen, tol=1e-3) == 3
    # Wiener's filter along the plane's own directions.
    wanted = (records @ plane.T) * [81 / 82, 36 / 37, 9 / 10]
    wanted -= wanted.mean(axis=0)
    before = np.linalg.norm(wanted[:, None] - wanted, axis=2)
    after = np.linalg.norm(seen[:, None] - seen, axis=2)
    assert np.abs(after - before).mean() < 0.1 * before.mean()


def test_as_many_cross_as_are_expected_when_sides_are_drawn_by_lot():
    draws = np.random.default_rng(0)
    records = draws.normal(size=(60, 4)).astype(np.float32)
    crossing, expected = [], []
    for _ in range(200):
        label = draws.permutation(np.repeat([0, 1], [20, 40]))
        received = CanonicalView(Observed(records, label, np.zeros(60, dtype=int)))
        found = linkage.pairings(received, 0)
        crossing.append(found.crossing[0, 1])
        expected.append(found.expected[0, 1])
    error = np.std(crossing) / np.sqrt(len(crossing))
    assert abs(np.mean(crossing) - np.mean(expected)) < 4 * error


def test_independent_records_are_hardly_ever_linked():
    """At a level of 0.01; of one label, where they are most alike, and of two."""
    joined = 0
    for trial in range(200):
        records, _ = classes(1, 60, 10, apart=0, seed=trial)
        label = np.repeat([0, 1], 30)
        received = CanonicalView(
            Observed(records.astype(np.float32), label, np.zeros(60, dtype=int))
        )
        found = linkage.pairings(received, 0)
        joined += how_many(linkage.linked(found)) == 1
    assert joined <= 6


def test_more_records_than_are_paired_are_still_linked(monkeypatch):
    monkeypatch.setattr(linkage, "_MOST_RECORDS", 600)
    records, real = classes(2, 250, 90, apart=0)
    observed, real_of = masked(records, real, np.zeros(500, dtype=int), "replicate", noise=0.2)
    received = CanonicalView(observed)
    found = linkage.pairings(received, 0)
    assert found.pairs.max() <= 100
    clusters = linkage.linked(found)
    assert len({(c, r) for c, r in zip(clusters, real_of[received.names], strict=True)}) == 2


# Lookalikes


def test_the_distance_by_chance_is_that_of_permuted_records():
    draws = np.random.default_rng(0)
    records = draws.normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    label = np.repeat([0, 1], [15, 35])
    received = CanonicalView(Observed(records.astype(np.float32), label, np.zeros(50, dtype=int)))
    distance, mean, variance = lookalikes.differences(received)
    # The unit of the client.
    points = received.smashed / np.sqrt(np.mean((received.smashed - received.smashed.mean(0)) ** 2))
    apart = []
    for _ in range(4000):
        side = draws.permutation(received.label)
        means = [points[side == place].mean(axis=0) for place in (0, 1)]
        apart.append(((means[0] - means[1]) ** 2).sum())
    assert mean[0, 1] == pytest.approx(np.mean(apart), rel=0.05)
    assert variance[0, 1] == pytest.approx(np.var(apart), rel=0.15)
    means = [points[received.label == place].mean(axis=0) for place in (0, 1)]
    assert distance[0, 1] == pytest.approx(((means[0] - means[1]) ** 2).sum())


def test_one_distribution_is_hardly_ever_taken_for_two():
    """At a level of 0.01, in many dimensions and few, with Laplace noise."""
    for dimensions in (2, 120):
        split = 0
        for trial in range(150):
            records = np.random.default_rng(trial).laplace(size=(60, dimensions))
            label = np.repeat([0, 1], [20, 40])
            received = CanonicalView(
                Observed(records.astype(np.float32), label, np.zeros(60, dtype=int))
            )
            split += how_many(lookalikes.alike(received)) == 2
        assert split <= 6


# Counts and sets


def observed_of(counts):
    """Return records of which so many came under each masked label (rows) from each client."""
    counts = np.array(counts)
    label, client = np.nonzero(counts)
    label, client = (np.repeat(side, counts[label, client]) for side in (label, client))
    return Observed(np.zeros((len(label), 2), dtype=np.float32), label, client)


def sets_of(clusters, received):
    return {
        frozenset(received.names[clusters == cluster].tolist()) for cluster in np.unique(clusters)
    }


def test_masked_labels_of_the_same_clients_and_of_the_same_counts():
    received = CanonicalView(observed_of([[3, 0], [2, 1], [1, 1], [3, 0], [2, 0]]))
    assert sets_of(client_view.same_clients(received), received) == {
        frozenset({0, 3, 4}),
        frozenset({1, 2}),
    }
    assert sets_of(client_view.same_counts(received), received) == {
        frozenset({0, 3}),
        frozenset({1}),
        frozenset({2}),
        frozenset({4}),
    }


@pytest.mark.parametrize("number", [1, 2, 3])
def test_masked_labels_of_the_same_clients_are_joined_before_others(number):
    received = CanonicalView(observed_of([[2, 0, 0], [2, 2, 0], [2, 0, 0], [2, 2, 0], [0, 0, 2]]))
    clusters = client_view.joined_by_clients(received, number)
    assert (
        sets_of(clusters, received)
        == {
            1: {frozenset(range(5))},
            # Half of their clients are the same: more than none.
            2: {frozenset(range(4)), frozenset({4})},
            3: {frozenset({0, 2}), frozenset({1, 3}), frozenset({4})},
        }[number]
    )


def test_what_vanishes_together_gives_a_real_label_away():
    real_of = np.array([0, 1, 0, 1, 2, 0])
    before = {0, 1, 2, 3, 4}  # Nothing ever came under 5.
    assert client_view.vanished(before, {1, 3, 4}) == {0, 2}
    assert client_view.gives_away(before, {1, 3, 4}, real_of)
    assert not client_view.gives_away(before, before, real_of)
    # A share of a label is left; two labels at once.
    assert not client_view.gives_away(before, {0, 1, 3, 4}, real_of)
    assert not client_view.gives_away(before, {4}, real_of)
    # What appears tells nothing.
    assert client_view.gives_away(before, {1, 3, 4, 5}, real_of)
