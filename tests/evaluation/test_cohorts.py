"""Whom a forgetting is judged by: members and non-members never overlap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.evaluation.cohorts import (
    check_apart,
    forgotten_in,
    held_out_for,
    keys,
    retained_in,
)
from split_unlearning.evaluation.outputs import Outputs


@st.composite
def models(draw):
    """Outputs of any samples; a split and an id occur once."""
    names = draw(st.sets(st.tuples(st.integers(0, 1), st.integers(0, 30)), min_size=1))
    split, ids = np.array(sorted(names)).T
    rows = len(ids)
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Outputs(
        client=numbers.integers(0, 3, rows),
        ids=ids,
        labels=numbers.integers(0, 3, rows),
        split=split,
        forgotten_by=np.where(split == 1, -1, numbers.integers(-1, 3, rows)),
        probabilities=np.full((rows, 3), 1 / 3, dtype=np.float32),
    )


@given(models())
def test_nobody_is_on_both_sides(outputs):
    cohorts = [forgotten_in(outputs, outputs, {task}) for task in (0, 1, 2)]
    cohorts.append(retained_in(outputs))
    held_out, kind = held_out_for(outputs, cohorts[1])
    for members in cohorts:
        assert not (members & held_out).any()
        check_apart(outputs.where(members), outputs.where(held_out))
    # Every training sample is in one cohort.
    assert (np.sum(cohorts, axis=0) == ~outputs.is_test).all()
    assert (kind == "none") == (not held_out.any())


@given(models())
def test_held_out_samples_are_of_the_kind_of_the_members(outputs):
    members = forgotten_in(outputs, outputs, {1})
    held_out, kind = held_out_for(outputs, members)
    pairs = set(zip(outputs.client[members], outputs.labels[members], strict=True))
    same = [
        bool(test) and (client, label) in pairs
        for test, client, label in zip(outputs.is_test, outputs.client, outputs.labels, strict=True)
    ]
    if any(same):
        assert kind == "same client and label"
        assert held_out.tolist() == same
    else:
        labels = {label for _, label in pairs}
        assert held_out.tolist() == (outputs.is_test & np.isin(outputs.labels, [*labels])).tolist()


@given(models(), st.randoms())
def test_a_sample_on_both_sides_is_found(outputs, random):
    row = random.randrange(len(outputs))
    one = np.arange(len(outputs)) == row
    with pytest.raises(ValueError, match="1 samples are both members and non-members"):
        check_apart(outputs.where(one), outputs)


@given(models())
def test_a_key_is_of_one_sample(outputs):
    assert len(np.unique(keys(outputs))) == len(outputs)


def test_what_is_forgotten_is_known_from_the_end():
    """Before a request, outputs do not say who will be forgotten."""
    early = Outputs(
        client=np.zeros(3, dtype=np.int64),
        ids=np.array([4, 5, 4]),
        labels=np.zeros(3, dtype=np.int64),
        split=np.array([0, 0, 1]),
        forgotten_by=np.full(3, -1),
        probabilities=np.ones((3, 1), dtype=np.float32),
    )
    late = Outputs(**{**early.__dict__, "forgotten_by": np.array([2, -1, -1])})
    assert forgotten_in(late, early, {2}).tolist() == [True, False, False]
    assert not forgotten_in(late, early, {1}).any()
    assert not forgotten_in(early, early, {2}).any()
