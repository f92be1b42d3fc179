"""What the two methods are told, what they say of their result, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from split_unlearning.unlearning.gradient_projection.methods import (
    GradientProjection,
    PaperProjection,
)
from split_unlearning.unlearning.methods import METHODS
from tests.refusals import refusal

BOTH = [GradientProjection, PaperProjection]


def test_they_go_by_their_names():
    assert METHODS.get("gradient-projection") is GradientProjection
    assert METHODS.get("gradient-projection-paper") is PaperProjection


def test_a_method_reads_what_both_read_and_settings_of_its_own():
    both = {"cache-codec", "cache-every"}
    assert GradientProjection.reads().keys() & PaperProjection.reads().keys() == both
    assert {"shares", "fine-tune-share"} <= GradientProjection.reads().keys()
    assert "projection-variant" in PaperProjection.reads()
    assert (GradientProjection.outlives_run, PaperProjection.outlives_run) == (True, False)


@pytest.mark.parametrize(
    ("epochs", "share", "expected"), [(30, 0.1, 3), (4, 0.1, 1), (20, 0.5, 10)]
)
def test_fine_tuning_is_a_share_of_learning(epochs, share, expected):
    stage = GradientProjection({"fine-tune-share": share}).fine_tuning(epochs)
    assert (stage.epochs, stage.samples) == (expected, "retained")
    assert PaperProjection({"fine-tune-share": share}).fine_tuning(30).epochs == 6


@pytest.mark.parametrize("method", BOTH)
def test_batch_norm_is_refused_by_its_name(method):
    named = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2)))
    line = refusal(method({}).check_network, named, error=ValueError)
    assert "BatchNorm1d (1.0)" in line
    method({}).check_network(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))


@given(st.integers(1, 20), st.data())
@settings(deadline=None)
def test_whole_shares_need_half_of_the_batches_pure(count, data):
    touched = data.draw(st.integers(0, count))
    batches = [np.array([2 * n, 2 * n + 1]) for n in range(count)]
    forgotten = np.array([2 * n for n in range(touched)], dtype=np.int64)
    whole = GradientProjection({"shares": "whole"})
    if (count - touched) / count < 0.5:
        line = refusal(whole.check_batches, batches, forgotten, error=ValueError)
        assert line.startswith("shares='whole' is not possible; allowed: recompute")
    else:
        whole.check_batches(batches, forgotten)
    GradientProjection({}).check_batches(batches, forgotten)


def test_what_is_approximate_is_said():
    exact = GradientProjection({}).approximations(lasting=False)
    rough = GradientProjection(
        {"cache-codec": "int8", "cache-every": 3, "shares": "whole", "client-part": "local"}
    ).approximations(lasting=False)
    assert set(exact) < set(rough)
    assert len(rough) == len(exact) + 4
    for word in ("int8", "one step in 3", "as a whole", "client-part=local"):
        assert sum(word in line for line in rough) == 1
    paper = PaperProjection({}).approximations(lasting=False)
    assert any("PaperProjection" in line for line in paper)
    (kept,) = set(GradientProjection({}).approximations(lasting=True)) - set(exact)
    assert "weights that had seen" in kept
