"""The attack on membership: its rates by brute force, what it looks at, what it learns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.evaluation.membership import MembershipAttack, features, judged, pair_features

# Few values, so that scores tie.
SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40).map(np.array)
# And many: a curve with more points than one in a hundred.
MANY = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(100, 400))


def by_hand(members, non_members):
    """Area and strict rate, counted pair by pair and threshold by threshold."""
    pairs = [(m > n) + 0.5 * (m == n) for m in members for n in non_members]
    rates = [
        (np.mean(non_members >= threshold), np.mean(members >= threshold))
        for threshold in {*members, *non_members, np.inf}
    ]
    return np.mean(pairs), max(true for false, true in rates if false <= 0.01), rates


@given(SCORES, SCORES)
def test_rates_are_those_that_counting_gives(members, non_members):
    found = judged(members, non_members)
    area, strict, rates = by_hand(members, non_members)
    assert found.auc == pytest.approx(area)
    assert found.tpr_at_1_percent_fpr == pytest.approx(strict)
    assert found.hit_rate == pytest.approx(sum(m > 0 for m in members) / len(members))
    assert found.false_positive_rate == pytest.approx(
        sum(n > 0 for n in non_members) / len(non_members)
    )
    assert (found.members, found.non_members) == (len(members), len(non_members))
    # The curve runs through corners that some threshold gives, from nothing to everything.
    corners = list(zip(found.roc.false_positive_rate, found.roc.true_positive_rate, strict=True))
    assert (corners[0], corners[-1]) == ((0.0, 0.0), (1.0, 1.0))
    known = np.array(rates)
    for corner in corners:
        assert np.abs(known - corner).sum(axis=1).min() < 1e-9
    assert np.trapezoid(found.roc.true_positive_rate, found.roc.false_positive_rate) == (
        pytest.approx(area)
    )


@given(MANY)
def test_at_one_percent_no_threshold_is_left_out(drawn):
    seed, some, many = drawn
    draws = np.random.default_rng(seed)
    # Rounded, so that there are straight lines in the curve.
    members, non_members = (
        np.round(draws.normal(mean, 1, n), 1) for mean, n in ((1, some), (0, many))
    )
    area, strict, _ = by_hand(members, non_members)
    found = judged(members, non_members)
    assert (found.auc, found.tpr_at_1_percent_fpr) == (pytest.approx(area), pytest.approx(strict))


@pytest.mark.parametrize("empty", [0, 1])
def test_nobody_is_judged_without_the_others(empty):
    sides = [np.zeros(3), np.zeros(3)]
    sides[empty] = np.zeros(0)
    with pytest.raises(ValueError, match="one of them is empty"):
        judged(*sides)
    with pytest.raises(ValueError, match="one of them is empty"):
        MembershipAttack(*(side[:, None] for side in sides))


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 30))
def test_what_is_looked_at(seed, scale):
    draws = np.random.default_rng(seed)
    probabilities = softmax(draws.normal(0, scale, (20, 5)))
    labels = draws.integers(0, 5, 20)
    found = features(probabilities, labels)
    assert found.shape == (20, 7)
    assert np.isfinite(found).all()
    loss = -np.log(np.clip(probabilities[np.arange(20), labels].astype(float), 1.2e-7, 1))
    large = loss > 1e-5
    np.testing.assert_allclose(np.exp(found[large, 0]), loss[large], rtol=1e-3)
    np.testing.assert_allclose(np.exp(found[:, 2]), probabilities.max(axis=1), rtol=1e-6)
    assert (np.diff(found[:, 2:], axis=1) <= 0).all()
    # Which label is which shows in the loss alone.
    order = draws.permutation(5)
    renamed = features(probabilities[:, order], np.argsort(order)[labels])
    np.testing.assert_allclose(renamed, found)


def test_probabilities_of_nought_and_one_are_looked_at_too():
    certain = np.array([[1, 0, 0]], dtype=np.float32)
    for label in range(3):
        assert np.isfinite(features(certain, np.array([label]))).all()


def test_a_pair_is_both_and_their_difference():
    draws = np.random.default_rng(0)
    before, after = draws.normal(size=(2, 4, 3))
    both = pair_features(before, after)
    assert both.shape == (4, 9)
    np.testing.assert_array_equal(both[:, :3], before)
    np.testing.assert_array_equal(both[:, 6:], after - before)


def outputs_of(draws, rows, sureness):
    """Outputs that are surer of the true label the larger `sureness` is."""
    labels = draws.integers(0, 4, rows)
    logits = draws.normal(0, 1, (rows, 4))
    logits[np.arange(rows), labels] += sureness
    return features(softmax(logits), labels)


def test_it_learns_what_tells_members_and_no_more():
    draws = np.random.default_rng(0)
    attack = MembershipAttack(outputs_of(draws, 2000, 4.0), outputs_of(draws, 500, 1.0))
    found = attack.on(outputs_of(draws, 1000, 4.0), outputs_of(draws, 1000, 1.0))
    assert found.auc > 0.85
    assert found.hit_rate > 0.7 > 0.4 > found.false_positive_rate
    # Of members that look like others it knows nothing, and calls as many of each members.
    guess = attack.on(outputs_of(draws, 1000, 1.0), outputs_of(draws, 1000, 1.0))
    assert abs(guess.auc - 0.5) < 0.06
    assert abs(guess.hit_rate - guess.false_positive_rate) < 0.1
    # Its rates do not depend on how many members there were to learn from.
    uneven = MembershipAttack(outputs_of(draws, 4000, 4.0), outputs_of(draws, 100, 1.0))
    assert (
        uneven.on(outputs_of(draws, 500, 4.0), outputs_of(draws, 500, 1.0)).false_positive_rate
        < 0.45
    )
