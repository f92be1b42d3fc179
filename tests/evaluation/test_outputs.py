"""The outputs of a model, kept beside a result."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.evaluation.outputs import FILE, Outputs, joined, read_outputs, write_outputs


def drawn(seed, rows, labels=4):
    draws = np.random.default_rng(seed)
    odds = draws.random((rows, labels), dtype=np.float32)
    return Outputs(
        client=draws.integers(0, 3, rows),
        ids=draws.permutation(rows).astype(np.int64),
        labels=draws.integers(0, labels, rows),
        split=draws.integers(0, 2, rows),
        forgotten_by=draws.integers(-1, 3, rows),
        probabilities=odds / odds.sum(axis=1, keepdims=True) if rows else odds,
    )


def same(one, other):
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in (field.name for field in fields(Outputs))
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_what_is_read_is_what_was_written(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("outputs") / "deep" / FILE
    written = {3 * number: drawn(number, rows) for number, rows in enumerate(sizes)}
    write_outputs(path, written)
    found = read_outputs(path)
    assert list(found) == list(written)
    assert all(same(found[task], written[task]) for task in written)
    assert [one.name for one in path.parent.iterdir()] == [FILE]


def test_samples_can_be_joined_and_chosen():
    one, other = drawn(0, 5), drawn(1, 3)
    both = joined([one, other])
    assert len(both) == 8
    assert same(both.where(np.arange(8) < 5), one)
    assert same(both.where(np.arange(8) >= 5), other)
    assert both.is_test.tolist() == (both.split == 1).tolist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ids": np.zeros(4, dtype=np.int64)}, "ids has the shape"),
        ({"labels": np.full(5, 4)}, "labels are outside 0..3"),
        ({"labels": np.full(5, -1)}, "labels are outside 0..3"),
        ({"probabilities": np.full((5, 4), np.nan, dtype=np.float32)}, "not finite"),
        ({"probabilities": np.zeros(5, dtype=np.float32)}, "have the shape"),
    ],
)
def test_what_does_not_hold_together_is_refused(change, says):
    good = drawn(0, 5)
    values = {field.name: getattr(good, field.name) for field in fields(Outputs)}
    with pytest.raises(ValueError, match=says):
        Outputs(**{**values, **change})


def test_a_file_that_lacks_something_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"task-0/ids": np.arange(3)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="does not hold outputs"):
        read_outputs(tmp_path / FILE)
