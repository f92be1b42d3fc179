"""Accuracy is a share of test samples, and none where there are none."""

import doctest
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from split_unlearning.evaluation import accuracy as module
from split_unlearning.evaluation.accuracy import accuracy


@given(arrays(np.int64, array_shapes(max_dims=2), elements=st.integers(0, 9)), st.data())
def test_it_counts_the_selected_samples_and_no_others(samples, data):
    draws = np.random.default_rng(data.draw(st.integers(0, 99)))
    where = draws.random(samples.shape) < 0.5
    correct = draws.integers(0, samples + 1)
    found = accuracy(correct, samples, where)
    if samples[where].sum() == 0:
        assert found is None
    else:
        assert found == correct[where].sum() / samples[where].sum()
    assert accuracy(correct * where, samples * where) == found


def test_the_example_is_right():
    names = {"np": np, "accuracy": accuracy}
    assert doctest.testmod(module, extraglobs=names).failed == 0


def test_the_room_is_imported_without_flower_ray_and_torch():
    code = (
        "import importlib, pkgutil, sys, split_unlearning.evaluation as room\n"
        "for one in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module(f'{room.__name__}.{one.name}')\n"
        "print([name for name in ('flwr', 'ray', 'torch') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]"
