"""Federated averaging, against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.models.averaging import weighted_average


def state(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(3, 4, generator=generator),
        "bias": torch.randn(4, generator=generator, dtype=torch.float64),
        "batches": torch.tensor(seed),
    }


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any))
def test_it_is_the_weighted_mean_and_counters_are_the_first_one_s(weights):
    states = [state(seed) for seed in range(len(weights))]
    mean = weighted_average(states, weights)
    for name in ("weight", "bias"):
        stacked = np.stack([one[name].double().numpy() for one in states])
        expected = np.average(stacked, axis=0, weights=weights)
        np.testing.assert_allclose(mean[name].double().numpy(), expected, atol=1e-6)
        assert mean[name].dtype == states[0][name].dtype
    assert mean["batches"].item() == 0


@given(st.integers(1, 10**6))
def test_one_alone_comes_back_bit_for_bit_and_is_not_shared(weight):
    alone = state(3)
    mean = weighted_average([alone], [weight])
    assert all(torch.equal(mean[name], alone[name]) for name in alone)
    mean["weight"] += 1
    mean["batches"] += 1
    assert not torch.equal(mean["weight"], alone["weight"])
    assert alone["batches"].item() == 3


def test_who_weighs_nothing_has_no_say():
    states = [state(seed) for seed in range(3)]
    mean = weighted_average(states, [0, 5, 0])
    assert torch.equal(mean["weight"], states[1]["weight"])


@pytest.mark.parametrize(("count", "weights"), [(0, []), (2, [1]), (2, [0, 0])])
def test_nothing_to_average_is_refused(count, weights):
    with pytest.raises(ValueError, match="cannot be averaged"):
        weighted_average([state(seed) for seed in range(count)], weights)
