"""Which attack finds what, what none can, how answers are scored, and what changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from split_unlearning.evaluation.label_matching import (
    AttackScore,
    guesses,
    inclusive_accuracy,
    match_labels,
    perfect_accuracy,
    strongest,
)
from split_unlearning.evaluation.observed import Observed
from tests.evaluation.received import classes, masked, permuted

pytestmark = pytest.mark.filterwarnings("error")
NAMES = [
    "kmeans elbow",
    "kmeans q leaked",
    "birch elbow",
    "birch q leaked",
    "kmeans silhouette",
    "kmeans gap",
    "client sets",
    "client sets silhouette",
    "client sets gap",
    "client sets q leaked",
    "record counts",
    "linkage",
    "linkage q leaked",
    "lookalikes",
    "lookalikes q leaked",
]


def perfect(observed, real_of, leaked_q, seed=0):
    return {
        attack.name: attack.perfect for attack in match_labels(observed, real_of, leaked_q, seed)
    }


def found_by(scores):
    return {name for name, score in scores.items() if score == 1}


# Scores


@st.composite
def answers(draw):
    size = draw(st.integers(1, 8))
    labels = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    clusters = draw(st.lists(st.integers(-1, 3), min_size=size, max_size=size).filter(any_seen))
    return np.array(clusters), np.array(draw(labels))


def any_seen(clusters):
    return max(clusters) >= 0


@given(answers())
def test_scores_are_what_they_are_defined_as(answer):
    clusters, real_of = answer
    observed = [place for place in range(len(clusters)) if clusters[place] >= 0]
    together = {
        frozenset(place for place in observed if clusters[place] == cluster)
        for cluster in {clusters[place] for place in observed}
    }
    reals = [
        frozenset(place for place in observed if real_of[place] == real)
        for real in {real_of[place] for place in observed}
    ]
    assert perfect_accuracy(clusters, real_of) == np.mean([real in together for real in reals])
    assert inclusive_accuracy(clusters, real_of) == np.mean(
        [any(real <= cluster for cluster in together) for real in reals]
    )


def test_scores_of_a_small_case():
    real_of = np.array([0, 0, 1, 1, 2, 2, 3])
    clusters = np.array([5, 5, 6, 6, 6, 7, 8])
    assert perfect_accuracy(clusters, real_of) == 0.5  # 0 and 3
    assert inclusive_accuracy(clusters, real_of) == 0.75  # 1 too
    # One cluster of everything includes everything and finds nothing.
    assert inclusive_accuracy(np.zeros(7, dtype=int), real_of) == 1
    assert perfect_accuracy(np.zeros(7, dtype=int), real_of) == 0
    # Nothing came under the last masked labels of 2 and 3: 3 is not in play, 2 has one.
    clusters[5:] = -1
    assert perfect_accuracy(clusters, real_of) == pytest.approx(1 / 3)
    assert inclusive_accuracy(clusters, real_of) == 1


# What is found


def test_separated_labels_are_found_by_all_but_who_sent_what():
    records, real = classes(4, 60, 3, apart=0)
    records += 60 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[real]
    client = np.arange(len(real)) % 2
    observed, real_of = masked(records, real, client, "partition", noise=0.3)
    scores = perfect(observed, real_of, 4)
    assert list(scores) == NAMES
    # Every client sends everything, and not one record twice; and twelve points are too few for
    # the gap statistic to leave one cluster.
    blind = {"client sets", "record counts", "linkage", "kmeans gap", "client sets gap"}
    assert found_by(scores) == {*NAMES} - blind
    assert scores["client sets"] == scores["linkage"] == scores["kmeans gap"] == 0


def test_a_client_of_one_label_gives_it_away_under_any_noise():
    records, real = classes(3, 40, 8, apart=1)
    observed, real_of = masked(records, real, real, "partition", noise=1000)
    scores = perfect(observed, real_of, 3)
    assert scores["client sets"] == scores["client sets q leaked"] == 1
    assert scores["kmeans q leaked"] < 1


def test_two_labels_a_client_need_a_look_at_the_records():
    """Clients' segments differ, so that clusters among all clients mean nothing."""
    records, real = classes(6, 60, 16, apart=1)
    client = real // 2
    observed, real_of = masked(records, real, client, "partition", noise=0.3)
    scores = perfect(observed, real_of, 6)
    assert scores["client sets"] == 0
    assert {"client sets silhouette", "client sets q leaked", "lookalikes"} <= found_by(scores)


def test_replicates_have_equal_counts_whatever_the_noise():
    records, real = classes(5, 30, 8, apart=1)
    kept = np.concatenate([np.flatnonzero(real == label)[: 20 + label] for label in range(5)])
    client = np.zeros(len(kept), dtype=int)
    observed, real_of = masked(records[kept], real[kept], client, "replicate", noise=1000)
    scores = perfect(observed, real_of, 5)
    assert found_by(scores) == {"record counts"}
    observed, real_of = masked(records, real, np.zeros(len(real), int), "replicate", noise=1000)
    assert perfect(observed, real_of, 5)["record counts"] == 0


def test_copies_are_linked_where_labels_themselves_cannot_be_told_apart():
    records, real = classes(4, 80, 100, apart=0)
    client = np.zeros(len(real), dtype=int)
    observed, real_of = masked(records, real, client, "replicate", noise=0.4)
    scores = perfect(observed, real_of, 4)
    assert scores["linkage"] == scores["linkage q leaked"] == 1
    assert scores["lookalikes"] == 0
    observed, real_of = masked(records, real, client, "partition", noise=0.4)
    scores = perfect(observed, real_of, 4)
    assert scores["linkage"] == 0


def test_lookalikes_hide_where_masked_labels_stand_for_modes():
    """Masked labels that differ as much as labels do are taken for labels."""
    records, mode = classes(6, 60, 16, apart=1)
    observed, _ = masked(records, mode, np.zeros(len(mode), dtype=int), "partition", gamma=1)
    found = {attack.name: attack for attack in match_labels(observed, np.arange(6) // 2, 3, 0)}
    assert found["lookalikes"].clusters == 6
    assert found["lookalikes"].perfect == 0


def test_where_labels_have_one_distribution_no_attack_beats_chance():
    """Masked labels have names in the order of real labels, which no attack may notice."""
    draws = np.random.default_rng(7)
    real_of = np.repeat(np.arange(4), 2)
    scores = {name: [] for name in NAMES}
    chances = {name: [] for name in NAMES}
    for trial in range(12):
        records = draws.normal(size=(96, 6)).astype(np.float32)
        label, client = np.repeat(np.arange(8), 12), draws.integers(2, size=96)
        for name, clusters in guesses(Observed(records, label, client), 8, 4, trial).items():
            scores[name].append(perfect_accuracy(clusters, real_of))
            chances[name] += [
                perfect_accuracy(clusters, draws.permutation(real_of)) for _ in range(50)
            ]
    for name in NAMES:
        spread = np.std(chances[name]) / np.sqrt(len(scores[name]))
        assert np.mean(scores[name]) <= np.mean(chances[name]) + 4 * spread, name


# What changes nothing


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["replicate", "partition"]), st.integers(0, 1))
def test_names_and_order_change_nothing(seed, copies, noise):
    draws = np.random.default_rng(seed)
    records, real = classes(3, 8, 5, apart=1, seed=seed)
    client = draws.integers(2, size=len(real))
    observed, real_of = masked(records, real, client, copies, noise=noise, seed=seed)
    expected = match_labels(observed, real_of, 3, seed=1)
    assert match_labels(*permuted(observed, real_of, seed), 3, seed=1) == expected


def test_the_number_of_threads_changes_nothing():
    records, real = classes(6, 50, 80, apart=0.3)
    observed, real_of = masked(records, real, real // 2, "partition", noise=0.5)
    with threadpool_limits(1):
        expected = match_labels(observed, real_of, 6, seed=1)
    with threadpool_limits(2):
        assert match_labels(observed, real_of, 6, seed=1) == expected


# What is hardly anything


def rows(masked_labels, content):
    label = np.array(masked_labels)
    return Observed(content(len(label)).astype(np.float32), label, np.zeros_like(label))


def normal(number):
    return np.random.default_rng(0).normal(size=(number, 70))


@pytest.mark.parametrize(
    "content", [normal, lambda number: np.ones((number, 70)), lambda number: np.zeros((number, 3))]
)
@pytest.mark.parametrize(
    "labels", [[0], [0] * 5, [3], [0, 1], [0, 1, 2, 3], [0, 0, 1, 3], [*range(4)] * 9]
)
@pytest.mark.parametrize("leaked_q", [1, 2, 9])
def test_little_ends_in_numbers(labels, content, leaked_q):
    for attack in match_labels(rows(labels, content), np.array([0, 0, 1, 1]), leaked_q, 0):
        assert 1 <= attack.clusters <= len(set(labels))
        assert 0 <= attack.perfect <= attack.inclusive <= 1


def test_no_expansion_is_always_inclusive():
    records, real = classes(5, 20, 8, apart=5)
    observed, real_of = masked(records, real, real % 2, "replicate", gamma=1)
    attacks = match_labels(observed, real_of, 5, 0)
    assert {attack.inclusive for attack in attacks} == {1.0}
    # Whoever knows that there are as many real labels as masked ones knows everything.
    assert {attack.perfect for attack in attacks if attack.name.endswith("leaked")} == {1.0}


# The strongest; and what is refused


def test_the_strongest_is_the_most_perfect_then_the_most_inclusive_then_the_first():
    a, b = AttackScore("a", 3, 1.0, 0.2), AttackScore("b", 3, 0.4, 0.4)
    assert strongest([a, b]) is b
    assert strongest([b, c := AttackScore("c", 3, 0.5, 0.4), AttackScore("d", 3, 0.5, 0.4)]) is c


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((np.zeros((0, 2)), [], []), r"smashed has the shape \(0, 2\)"),
        ((np.zeros(2), [0, 0], [0, 0]), r"smashed has the shape \(2,\)"),
        ((np.zeros((2, 2)), [0], [0, 0]), r"masked has the shape \(1,\); allowed: \(2,\)"),
        ((np.zeros((1, 2)), [0], [0.5]), "client holds float64; allowed: integers"),
        ((np.zeros((1, 2)), [-1], [0]), "masked holds -1; allowed: at least 0"),
        ((np.full((1, 2), np.nan), [0], [0]), "smashed holds numbers that are not finite"),
    ],
)
def test_what_nobody_can_have_observed_is_refused(arguments, line):
    smashed, label, client = arguments
    with pytest.raises(ValueError, match=line):
        Observed(smashed.astype(np.float32), np.array(label), np.array(client))


def test_what_cannot_be_scored_is_refused():
    observed = rows([0, 2], normal)
    with pytest.raises(ValueError, match="leaked_q is 0; allowed: at least 1"):
        match_labels(observed, np.arange(3), 0, 0)
    with pytest.raises(ValueError, match="masked label 2; allowed: below 2"):
        match_labels(observed, np.arange(2), 1, 0)
    with pytest.raises(ValueError, match=r"clusters has the shape \(2,\); allowed: \(3,\)"):
        perfect_accuracy(np.zeros(2, dtype=int), np.arange(3))
    with pytest.raises(ValueError, match="nothing to score"):
        inclusive_accuracy(np.array([-1]), np.array([0]))
