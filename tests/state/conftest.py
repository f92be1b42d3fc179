import shutil
from dataclasses import replace

import numpy as np
import pytest

from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.loading import load
from tests.state.bench import SLICED, few_digits, learn

FIRST = 0x5A17C0DE00
"""Ids that are found in no file by chance."""


class FromFirst:
    """An array whose rows are called by ids from `FIRST` on."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __array__(self, dtype=None, copy=None):
        return self.rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, ids):
        return self.rows[np.asarray(ids) - FIRST]


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The name of a data set of a few digits."""
    return few_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


@pytest.fixture(scope="module")
def dealing(digits):
    """A few digits under these ids, every third to the same client."""
    data = load(digits)
    dataset = replace(data, x_train=FromFirst(data.x_train), y_train=FromFirst(data.y_train))
    ids = FIRST + np.arange(len(data.y_train))
    tests = np.arange(len(data.y_test))
    return dataset, Plan(
        tuple(ids[client::3] for client in range(3)), tuple(tests[client::3] for client in range(3))
    )


@pytest.fixture(scope="session")
def sliced(digits):
    """Settings of a short run with slices on both sides."""
    return {**SLICED, "dataset": digits}


@pytest.fixture(scope="session")
def learned(tmp_path_factory, sliced):
    """A state-dir that learned with slices, for all tests that only copy it."""
    path = tmp_path_factory.mktemp("learned") / "state"
    learn(path, sliced)
    return path


@pytest.fixture
def state(learned, tmp_path):
    """A copy of what was learned, at another place."""
    return shutil.copytree(learned, tmp_path / "state")
