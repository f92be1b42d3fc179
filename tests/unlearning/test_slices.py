"""Which sample lies in which slice, how long each step takes, and where a request begins."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.slices import dealt, epochs_of, first_touched, slice_of, step_of
from split_unlearning.unlearning.stages import Stage

ids_of_samples = st.sets(st.integers(0, 2**40), min_size=1, max_size=50).map(
    lambda ids: np.array(sorted(ids), dtype=np.int64)
)


@given(ids_of_samples, st.integers(1, 9), st.integers(0, 2**63 - 1), st.data())
def test_the_slice_of_a_sample_depends_on_no_other(ids, slices, seed, data):
    inside = slice_of(ids, slices, seed)
    assert inside.dtype == np.int64
    assert ((inside >= 0) & (inside < slices)).all()
    kept = np.array(data.draw(st.lists(st.sampled_from(range(len(ids))), unique=True)), dtype=int)
    assert slice_of(ids[kept], slices, seed).tolist() == inside[kept].tolist()


def test_slices_are_about_equal_and_follow_from_the_seed():
    ids = np.arange(10_000)
    counts = np.bincount(slice_of(ids, 8, 1), minlength=8)
    assert counts.min() > 1100
    assert counts.max() < 1400
    assert (slice_of(ids, 8, 1) != slice_of(ids, 8, 2)).any()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 200))
def test_no_step_takes_more_visits_than_its_part_of_all(sizes, epochs):
    steps, number = epochs_of(sizes, epochs), len(sizes)
    between = Fraction(2, 2 * (number - 2) + 14) if number > 1 else Fraction(0)
    ends = Fraction(7, 2) * between if number > 1 else Fraction(1)
    for place, (taken, seen) in enumerate(zip(steps, np.cumsum(sizes).tolist(), strict=True)):
        part = epochs * sum(sizes) * (ends if place in (0, number - 1) else between)
        assert taken >= 1
        assert taken * seen <= part or taken == 1
        # One more would be too many.
        assert (taken + 1) * seen > part


def test_the_steps_of_the_papers_epochs():
    assert epochs_of([1] * 5, 30) == [52, 7, 5, 3, 10]
    assert epochs_of([7], 30) == [30]
    assert epochs_of([1] * 3, 0) == [0, 0, 0]
    assert epochs_of([2, 3], 30) == [37, 15]


def test_the_steps_redo_no_more_than_is_claimed():
    """Of five slices at the paper's 30 epochs; README and `epochs_of` say so."""
    visits = [taken * step / (5 * 30) for step, taken in enumerate(epochs_of([1] * 5, 30), start=1)]
    redone = [sum(visits[first:]) for first in range(5)]
    assert sum(visits) <= 1
    assert np.mean(redone) == pytest.approx(0.564, abs=0.001)
    assert redone[-1] == pytest.approx(1 / 3)


def test_one_slice_is_the_stage_as_it_is():
    stage = Stage("train", 4)
    assert step_of(stage, 0, 1) == stage
    assert [step_of(stage, number, 2).name for number in (0, 1)] == ["train-1", "train-2"]


@given(st.permutations(list(range(7))), st.integers(1, 7))
def test_each_client_lies_in_one_slice_the_most_stable_first(clients, slices):
    parts = dealt(clients, slices)
    assert [client for part in parts for client in part] == clients
    assert {len(part) for part in parts} <= {7 // slices, -(-7 // slices)}
    assert [len(part) for part in parts] == sorted(len(part) for part in parts)


def test_a_slice_without_a_client_is_refused():
    with pytest.raises(UserError, match=r"^server-slices=3 is not possible; allowed: at most 2"):
        dealt([0, 1], 3)


@given(st.permutations(list(range(6))), st.sets(st.integers(0, 5), min_size=1))
def test_a_request_begins_with_the_first_slice_that_holds_one_of_its_clients(clients, asking):
    parts = dealt(clients, 3)
    first = first_touched(parts, asking)
    assert set(parts[first]) & asking
    assert not any(set(part) & asking for part in parts[:first])
