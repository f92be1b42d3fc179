"""Masked labels: the same map for all who hold the secret, and the way back from predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from split_unlearning.clients.label_privacy.label_map import Expansion, LabelMap
from split_unlearning.foundations.errors import UserError

SECRET = bytes(range(32))
label_sets = st.sets(st.integers(0, 200), min_size=1, max_size=20).map(lambda s: tuple(sorted(s)))
expansions = st.tuples(st.integers(1, 5), st.integers(0, 4)).map(
    lambda pair: Expansion(pair[0], sum(pair))
)


@pytest.mark.parametrize(
    ("text", "low", "high"), [("1", 1, 1), ("3", 3, 3), ("1-3", 1, 3), ("2-2", 2, 2)]
)
def test_an_expansion_is_read(text, low, high):
    assert Expansion.parse(text) == Expansion(low, high)


@given(expansions)
@settings(deadline=None)
def test_an_expansion_is_read_as_it_is_written(expansion):
    assert Expansion.parse(str(expansion)) == expansion


@pytest.mark.parametrize(
    "text", ["0", "0-3", "3-1", "-1", "", "x", "1-", "-3", "1.5", "1 - 3", "1-2-3", "\u0661", "3\n"]
)
def test_another_expansion_is_refused(text):
    with pytest.raises(UserError, match=r"^expansion='.*' is not possible; allowed: ") as refused:
        Expansion.parse(text)
    assert "\n" not in str(refused.value)


@given(label_sets, expansions, st.binary(min_size=16, max_size=40))
@settings(deadline=None)
def test_a_map_is_one_to_many_and_onto(labels, expansion, secret):
    drawn = LabelMap.drawn(labels, expansion, secret)
    masked = [drawn.masked_of(label) for label in labels]
    assert all(expansion.low <= len(of_label) <= expansion.high for of_label in masked)
    assert sorted(sum(masked, ())) == list(range(drawn.num_masked))
    assert drawn.real_of.dtype == np.int64
    assert drawn.real_of.shape == (drawn.num_masked,)
    for label, of_label in zip(labels, masked, strict=True):
        assert (drawn.real_of[list(of_label)] == label).all()
    # What every other client draws.
    again = LabelMap.drawn(labels, expansion, secret)
    assert again == drawn
    assert (again.real_of == drawn.real_of).all()


def test_the_map_is_secret():
    labels = tuple(range(30))
    maps = {LabelMap.drawn(labels, Expansion(1, 3), bytes([n]) * 32).masked for n in range(20)}
    assert len(maps) == 20
    drawn = LabelMap.drawn(labels, Expansion(1, 3), SECRET)
    assert str(drawn) == repr(drawn) == f"LabelMap(labels={labels})"


def test_every_place_and_every_number_of_masked_labels_comes_up():
    maps = [LabelMap.drawn((0, 1), Expansion(1, 3), bytes([n]) * 16) for n in range(256)]
    counts = np.bincount([len(drawn.masked_of(0)) for drawn in maps])
    assert (counts[1:] > 60).all()
    pairs = [LabelMap.drawn((4, 7), Expansion(1, 1), bytes([n]) * 16) for n in range(256)]
    assert 100 < sum(drawn.masked_of(4) == (0,) for drawn in pairs) < 156


def test_the_order_of_a_labels_masked_labels_is_not_that_of_their_values():
    drawn = LabelMap.drawn(tuple(range(50)), Expansion(2, 2), SECRET)
    rising = sum(low < high for low, high in drawn.masked)
    assert 10 < rising < 40


def test_how_often_a_label_is_expanded_does_not_depend_on_the_other_labels():
    of_all = LabelMap.drawn(tuple(range(9)), Expansion(1, 9), SECRET)
    of_some = LabelMap.drawn((2, 5), Expansion(1, 9), SECRET)
    assert [len(of_all.masked_of(q)) for q in (2, 5)] == [len(of_some.masked_of(q)) for q in (2, 5)]


@pytest.mark.parametrize("labels", [(), (2, 1), (1, 1)])
def test_labels_that_no_consensus_gives(labels):
    with pytest.raises(ValueError, match="sorted"):
        LabelMap.drawn(labels, Expansion(1, 1), SECRET)


def test_a_label_that_was_not_agreed_on_is_refused_and_not_named():
    drawn = LabelMap.drawn((1, 34), Expansion(2, 2), SECRET)
    drawn.check(np.array([34, 1, 1]))
    drawn.check(np.array([], dtype=np.int64))
    with pytest.raises(UserError, match=r"^labels of 2 samples are not among ") as refused:
        drawn.check(np.array([34, 77, 1, 77]))
    assert not {"34", "77", "\n"} & {str(refused.value)[i : i + 2] for i in range(500)}


# Demasking.


def test_probabilities_are_added_up():
    drawn = LabelMap((3, 8), ((0, 2), (1,)))
    predicted = drawn.demask(np.array([[0.3, 0.4, 0.3], [0.2, 0.7, 0.1]], dtype=np.float32))
    assert predicted.tolist() == [3, 8]
    assert predicted.dtype == np.int64


def test_the_smaller_of_two_equal_labels_wins():
    assert LabelMap((3, 8), ((1,), (0,))).demask(np.array([[0.5, 0.5]])).tolist() == [3]


@given(label_sets, expansions, st.integers(0, 2**32))
@settings(deadline=None)
def test_demasking_is_the_largest_sum(labels, expansion, seed):
    drawn = LabelMap.drawn(labels, expansion, SECRET)
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(drawn.num_masked), 5)
    for row, predicted in zip(probabilities, drawn.demask(probabilities), strict=True):
        sums = {label: row[drawn.real_of == label].sum() for label in labels}
        assert sums[int(predicted)] == pytest.approx(max(sums.values()))


@pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 5)])
def test_a_prediction_for_other_labels_is_an_error(shape):
    with pytest.raises(ValueError, match="for 4 masked labels"):
        LabelMap.drawn((0, 1), Expansion(2, 2), SECRET).demask(np.zeros(shape))


def test_summed_probability_is_never_worse_than_argmax_on_the_digits():
    """Argmax splits the votes of one label among its masked labels."""
    x, y = load_digits(return_X_y=True)
    better = 0
    for number in range(3):
        rng = np.random.default_rng(number)
        drawn = LabelMap.drawn(tuple(range(10)), Expansion(1, 3), bytes([number]) * 32)
        masked = np.array([rng.choice(drawn.masked_of(label)) for label in y])
        noisy = x + rng.laplace(scale=6, size=x.shape)
        train, test = np.arange(len(x)) % 3 > 0, np.arange(len(x)) % 3 == 0
        model = LogisticRegression(max_iter=60, tol=1e-2).fit(noisy[train] / 16, masked[train])
        probabilities = model.predict_proba(noisy[test] / 16)
        summed = (drawn.demask(probabilities) == y[test]).mean()
        argmax = (drawn.real_of[probabilities.argmax(axis=1)] == y[test]).mean()
        assert summed >= argmax
        better += summed > argmax
    assert better > 0
