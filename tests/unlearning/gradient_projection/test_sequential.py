"""The recursion: its invariants, and its shares against gradients taken live in plain PyTorch."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.sequential import (
    SequentialProjection,
    coefficients,
    project,
)
from split_unlearning.unlearning.gradient_projection.steps import Step
from tests.unlearning.gradient_projection.test_cache import network, train

SIZES = {"weight": (7, 5), "bias": (7,)}

some_steps = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["pure", "mixed", "forgotten"])),
    min_size=1,
    max_size=8,
)


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) for name, size in SIZES.items()}


def zeros():
    return {name: torch.zeros(size) for name, size in SIZES.items()}


def norm(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()]).norm().item()


def shares(seed, kind):
    retained = None if kind == "forgotten" else drawn(seed)
    return retained, (None if kind == "pure" else drawn(seed + 1))


def run(steps, scale=1.0, beta=1.0):
    removed = zeros()
    for seed, kind in steps:
        retained, forgotten = shares(seed, kind)
        forgotten = forgotten and {name: scale * one for name, one in forgotten.items()}
        project(removed, retained, forgotten, 0.1, beta)
    return removed


@given(st.integers(0, 10**6), st.integers(0, 10**6))
@settings(deadline=None)
def test_nothing_is_left_along_the_retained_share(u_seed, r_seed):
    removed, retained = drawn(u_seed), drawn(r_seed)
    before = {name: tensor.norm() for name, tensor in removed.items()}
    project(removed, retained, None, 0.1)
    for name, u in removed.items():
        assert abs((u * retained[name]).sum()) <= 1e-6 * before[name] * retained[name].norm()


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.01, 100), st.booleans())
@settings(deadline=None)
def test_projecting_twice_or_along_a_multiple_changes_nothing(u_seed, r_seed, scale, negative):
    once, multiple = drawn(u_seed), drawn(u_seed)
    retained = drawn(r_seed)
    project(once, retained, None, 0.1)
    twice = {name: tensor.clone() for name, tensor in once.items()}
    project(twice, retained, None, 0.1)
    factor = -scale if negative else scale
    project(multiple, {name: factor * r for name, r in retained.items()}, None, 0.1)
    for name, u in once.items():
        torch.testing.assert_close(twice[name], u, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(multiple[name], u, atol=1e-5, rtol=1e-5)


@given(some_steps, st.floats(0, 1))
@settings(deadline=None)
def test_the_norm_rises_by_what_is_forgotten_alone(steps, beta):
    removed, bound = zeros(), 0.0
    for seed, kind in steps:
        retained, forgotten = shares(seed, kind)
        before = norm(removed)
        project(removed, retained, None, 0.1, beta)
        assert norm(removed) <= before * (1 + 1e-6)
        project(removed, None, forgotten, 0.1, beta)
        bound += 0.1 * norm(forgotten) if forgotten else 0.0
    assert norm(removed) <= bound * (1 + 1e-5)


@given(some_steps)
@settings(deadline=None)
def test_without_a_retained_share_it_is_a_sum_and_without_a_forgotten_one_nothing(steps):
    added, nothing = zeros(), zeros()
    for seed, _ in steps:
        project(added, None, drawn(seed), 0.1)
        project(nothing, drawn(seed), None, 0.1)
    for name in SIZES:
        total = 0.1 * sum(drawn(seed)[name].double() for seed, _ in steps)
        torch.testing.assert_close(added[name].double(), total, atol=1e-5, rtol=1e-5)
        assert not nothing[name].any()


@given(some_steps, st.floats(-3, 3))
@settings(deadline=None)
def test_it_is_linear_in_what_is_forgotten(steps, scale):
    once, scaled = run(steps), run(steps, scale)
    for name, u in once.items():
        torch.testing.assert_close(scaled[name], scale * u, atol=1e-4, rtol=1e-4)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12), st.floats(0, 0.95))
@settings(deadline=None)
def test_the_coefficients_are_their_definition(rates, momentum):
    found = coefficients(rates, momentum)
    for t, value in enumerate(found):
        assert value == pytest.approx(
            sum(rate * momentum ** (s - t) for s, rate in enumerate(rates) if s >= t)
        )


# Over a cache.


def cached(counts, steps, batch_size=4, codec="float32", every=1):
    """A cache of random gradients, and the coefficients of its steps."""
    cache = GradientCache({}, "a run", codec, every)
    cache.keep_weights(0, zeros(), {})
    for number in range(steps):
        cache.add(Step(number, 0, batch_size, 0.1), drawn(number))
    assert set(counts) <= set(range(steps))
    return cache, dict.fromkeys(range(steps), 0.1)


counts_of_steps = st.dictionaries(st.integers(0, 9), st.integers(1, 4), max_size=10)


@given(counts_of_steps)
@settings(deadline=None)
def test_with_whole_shares_no_mixed_gradient_is_projected_along(counts):
    cache, moved = cached(counts, 10)
    expected = zeros()
    for number in range(10):
        pair = (None, drawn(number)) if number in counts else (drawn(number), None)
        project(expected, *pair, 0.1)
    found = SequentialProjection(cache, counts, moved, zeros(), shares="whole").finish()
    for name, u in expected.items():
        assert torch.equal(found[name], u)


@given(counts_of_steps, st.lists(st.integers(0, 10), max_size=3).map(sorted))
@settings(deadline=None)
def test_a_chain_over_turns_is_one_recursion(counts, borders):
    cache, moved = cached(counts, 10)
    whole = SequentialProjection(cache, counts, moved, zeros(), shares="whole").finish()
    carried = zeros()
    edges = [0, *borders, 10]
    for start, stop in pairwise(edges):
        turn = [step for step in cache.steps if start <= step.number < stop]
        carried = SequentialProjection(
            cache, counts, moved, carried, steps=turn, shares="whole"
        ).finish()
    for name, u in whole.items():
        assert torch.equal(carried[name], u)


def test_a_thinned_cache_rounds_what_is_forgotten_and_skips_what_is_retained():
    counts = {0: 4, 3: 2, 4: 1}
    cache, moved = cached(counts, 8, every=2)
    expected = zeros()
    project(expected, None, drawn(0), 0.1)
    project(expected, drawn(2), None, 0.1)
    # Step 3 is not there; 4 is, with half as much that is forgotten.
    project(expected, None, {name: 2 * one for name, one in drawn(4).items()}, 0.1)
    project(expected, None, drawn(4), 0.1)
    project(expected, drawn(6), None, 0.1)
    found = SequentialProjection(cache, counts, moved, zeros(), shares="whole").finish()
    for name, u in expected.items():
        torch.testing.assert_close(found[name], u)


@given(counts_of_steps.filter(bool))
@settings(deadline=None, max_examples=30)
def test_eight_bits_point_the_same_way(counts):
    results = []
    for codec in ("float32", "int8"):
        cache, moved = cached(counts, 10, codec=codec)
        found = SequentialProjection(cache, counts, moved, zeros(), shares="whole").finish()
        results.append(torch.cat([one.flatten() for one in found.values()]))
    assert torch.cosine_similarity(*results, dim=0) > 0.999


def test_a_share_that_nobody_told_is_missed():
    cache, moved = cached({5: 2}, 8)
    projection = SequentialProjection(cache, {5: 2}, moved, zeros())
    with pytest.raises(ValueError, match="step 5 mixes"):
        projection.finish()
    with pytest.raises(ValueError, match="step 5 mixes"):
        projection.take(6, zeros())
    projection.take(5, zeros())
    with pytest.raises(ValueError, match="share of step 5"):
        projection.take(5, zeros())


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_recomputed_shares_are_the_live_ones_and_add_up_to_the_whole(codec):
    """Also from the 8-bit cache: weights that are kept on the way keep the replay close."""
    every = 0 if codec == "float32" else 4
    counts = {2: 6, 3: 2, 7: 1, 11: 5}
    cache, live = GradientCache({}, "a run", codec), {}
    segment = network(3)
    batches = []
    for number, (_, x, y) in enumerate(train(segment, cache, 14, 0.1, 0.9, 0.01, every)):
        batches.append((x, y))
        del number
    # The weights before each step, from a second training that records nothing else.
    befores = [w for w, _, _ in train(network(3), GradientCache({}, "b"), 14, 0.1, 0.9, 0.01)]

    def share(weights, number):
        x, y = (part[: counts[number]] for part in batches[number])
        held = {name: one.clone().requires_grad_() for name, one in weights.items()}
        loss = nn.functional.cross_entropy(functional_call(segment, held, (x,)), y)
        scaled = loss * counts[number] / 6
        return dict(zip(held, torch.autograd.grad(scaled, list(held.values())), strict=True))

    moved = dict(enumerate(coefficients([0.1] * 14, 0.9)))
    empty = {name: torch.zeros_like(one) for name, one in befores[0].items()}
    projection = SequentialProjection(cache, counts, moved, empty, momentum=0.9)
    expected = {name: torch.zeros_like(one) for name, one in befores[0].items()}
    tolerance = 6e-7 if codec == "float32" else 0.02
    for number in range(14):
        gradients = cache.gradients(number)
        if 0 < counts.get(number, 0) < 6:
            live[number] = share(befores[number], number)
            again = share(projection.weights(number), number)
            for name in again:
                assert (again[name] - live[number][name]).abs().max() <= tolerance
            projection.take(number, again)
            rest = {name: gradients[name] - again[name] for name in again}
            project(expected, rest, again, moved[number])
        elif number in counts:
            project(expected, None, gradients, moved[number])
        else:
            project(expected, gradients, None, moved[number])
    found = projection.finish()
    assert projection.evaluations == 8
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_everything_forgotten_leads_back_to_the_first_weights():
    cache, segment = GradientCache({}, "a run"), network(4)
    first = {name: one.detach().clone() for name, one in segment.named_parameters()}
    for _ in train(segment, cache, 12, 0.1, 0.9, 0.01):
        pass
    counts = dict.fromkeys(range(12), 6)
    moved = dict(enumerate(coefficients([0.1] * 12, 0.9)))
    empty = {name: torch.zeros_like(one) for name, one in first.items()}
    removed = SequentialProjection(cache, counts, moved, empty, momentum=0.9).finish()
    for name, parameter in segment.named_parameters():
        torch.testing.assert_close(
            parameter.detach() + removed[name], first[name], atol=1e-4, rtol=0
        )


def test_nothing_forgotten_removes_nothing():
    cache, moved = cached({}, 6)
    removed = SequentialProjection(cache, {}, moved, zeros()).finish()
    assert not any(one.any() for one in removed.values())
    assert np.isfinite(list(moved.values())).all()


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 1000))
def test_on_a_rewritten_cache_a_share_is_what_the_whole_holds_of_it(scale):
    """Its least-squares fit, nothing of the opposite; of a step as it was learned it is itself."""
    gradient = {"w": torch.tensor([3.0, 4.0])}
    for rewritten, sign, expected in (
        (False, 1, scale),
        (False, -1, scale),
        (True, 1, min(scale, 4.0)),
        (True, -1, 0.0),
    ):
        cache = GradientCache({}, "a run")
        cache.keep_weights(0, {"w": torch.zeros(2)}, {})
        cache.add(Step(0, 0, 4, 0.1), gradient)
        cache.describe({}, {0: {"w": 0.5}} if rewritten else {})
        began = {"w": torch.zeros(2)}
        projection = SequentialProjection(cache, {0: 1}, {0: 0.1}, began)
        projection.take(0, {"w": torch.tensor([0.0, sign * scale])})
        norm = projection.finish()["w"].norm().item()
        assert norm == pytest.approx(0.1 * expected, rel=1e-5)
