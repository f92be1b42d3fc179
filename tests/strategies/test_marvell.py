"""Marvell's noise against the paper's objective, other noise, and plain matrices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.strategies.server.marvell import (
    Noise,
    TwoLabels,
    best_noise,
    divergence,
    shared_noise,
)


def objective(labels, noise):
    """The paper's objective (Theorem 2), as it is printed there."""
    (l10, l11), (l20, l21) = noise.along, noise.across
    (u, v), d, gap = labels.variances, labels.dimensions, labels.gap
    return (
        (d - 1) * (l20 + u) / (l21 + v)
        + (d - 1) * (l21 + v) / (l20 + u)
        + (l10 + u + gap) / (l11 + v)
        + (l11 + v + gap) / (l10 + u)
    )


def kullback_leibler(mean, covariance, other_mean, other_covariance):
    """KL(N || N'), from the textbook, with whole matrices."""
    inverse = np.linalg.inv(other_covariance)
    gap = other_mean - mean
    log_ratio = np.linalg.slogdet(other_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(inverse @ covariance) + gap @ inverse @ gap - len(mean) + log_ratio)


def covariances(direction, noise, variances):
    """Of the noisy gradients of both labels."""
    onto = np.outer(direction, direction)
    return [
        (noise.along[k] - noise.across[k]) * onto
        + (noise.across[k] + variances[k]) * np.eye(len(direction))
        for k in (0, 1)
    ]


variances = st.floats(-9, 3).map(math.exp)


@st.composite
def two_labels(draw, most_dimensions=3000):
    gap = math.exp(draw(st.floats(-15, 3)))
    return TwoLabels(
        dimensions=draw(st.integers(2, most_dimensions)),
        gap=gap,
        variances=(gap * draw(variances), gap * draw(variances)),
        share=draw(st.floats(0.02, 0.98)),
    )


budgets = st.floats(-4, 5).map(math.exp)


@settings(deadline=None, max_examples=40)
@given(two_labels(most_dimensions=6), budgets, st.integers(0, 2**32))
def test_the_divergence_is_that_of_two_normal_distributions(labels, budget, seed):
    random = np.random.default_rng(seed)
    noise = best_noise(labels, budget * labels.gap)
    direction = random.normal(size=labels.dimensions)
    direction /= np.linalg.norm(direction)
    mean, other = np.zeros(labels.dimensions), math.sqrt(labels.gap) * direction
    for one in (noise, Noise((0.0, 0.0), (0.0, 0.0))):
        first, second = covariances(direction, one, labels.variances)
        both = kullback_leibler(mean, first, other, second)
        both += kullback_leibler(other, second, mean, first)
        assert divergence(labels, one) == pytest.approx(both, rel=1e-6, abs=1e-6)
        # The paper's objective is twice that, but for a constant.
        value = objective(labels, one) / 2 - labels.dimensions
        assert divergence(labels, one) == pytest.approx(value, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(two_labels(), budgets)
def test_the_noise_is_possible_and_spends_the_whole_budget(labels, budget):
    noise = best_noise(labels, budget * labels.gap)
    assert noise.power(labels) == pytest.approx(budget * labels.gap, rel=1e-6)
    for along, across in zip(noise.along, noise.across, strict=True):
        assert along >= across * (1 - 1e-9) >= 0
    # Less divergence than without.
    assert divergence(labels, noise) < divergence(labels)


@settings(deadline=None, max_examples=60)
@given(two_labels(), budgets, st.integers(0, 2**32))
def test_no_other_noise_of_that_power_does_better(labels, budget, seed):
    power = budget * labels.gap
    best = divergence(labels, best_noise(labels, power))
    random = np.random.default_rng(seed)
    isotropic = power / labels.dimensions
    others = [
        Noise((isotropic, isotropic), (isotropic, isotropic)),
        Noise((power, power), (0.0, 0.0)),
        Noise((power / labels.shares[0], 0.0), (0.0, 0.0)),
        Noise((0.0, power / labels.shares[1]), (0.0, 0.0)),
    ]
    for _ in range(200):
        across = random.exponential(size=2) * (random.random(2) < 0.5)
        along = across + random.exponential(size=2) * 10 ** random.uniform(-3, 3, 2)
        one = Noise(tuple(along), tuple(across))
        scale = power / one.power(labels)
        others.append(Noise(tuple(along * scale), tuple(across * scale)))
    for one in others:
        assert one.power(labels) == pytest.approx(power)
        assert best <= divergence(labels, one) * (1 + 1e-7)


@settings(deadline=None, max_examples=60)
@given(two_labels(), budgets, st.integers(0, 2**32))
def test_no_noise_near_it_does_better(labels, budget, seed):
    """The problem is convex in logarithms: what is best near it is best of all."""
    power = budget * labels.gap
    noise = best_noise(labels, power)
    best = divergence(labels, noise)
    random = np.random.default_rng(seed)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(40):
            shares = np.array([*noise.along, *noise.across])
            # Proportional to what there is, and to the budget, for what there is none of.
            weight = np.array([1, 1, labels.dimensions, labels.dimensions])
            shares = shares * np.exp(size * random.normal(size=4))
            shares += (
                size**2 * random.exponential(size=4) * power / weight * (random.random(4) < 0.3)
            )
            shares[2:] = np.minimum(shares[2:], shares[:2])
            near = Noise(tuple(shares[:2]), tuple(shares[2:]))
            near = Noise(
                tuple(shares[:2] * power / near.power(labels)),
                tuple(shares[2:] * power / near.power(labels)),
            )
            assert best <= divergence(labels, near) * (1 + 1e-7)


@pytest.mark.parametrize("budget", [0.1, 1.0, 30.0])
def test_labels_that_vary_alike_and_are_equally_frequent_share_the_noise_along_the_gap(budget):
    labels = TwoLabels(dimensions=50, gap=2.0, variances=(0.3, 0.3), share=0.5)
    noise = best_noise(labels, budget)
    assert noise.along == pytest.approx((budget, budget), rel=1e-6)
    assert noise.across == pytest.approx((0.0, 0.0), abs=1e-9 * budget)
    # Closed form: both divergences are ‖Δg‖² / 2 over the variance along the gap.
    assert divergence(labels, noise) == pytest.approx(2.0 / (budget + 0.3))


def test_the_rarer_label_gets_more_noise_and_the_quieter_one_alone_gets_some_across():
    labels = TwoLabels(dimensions=10, gap=1.0, variances=(0.2, 0.5), share=0.1)
    noise = best_noise(labels, 3.0)
    assert noise.along[1] > noise.along[0]
    assert 0.0 < noise.across[0] < 0.3 + 1e-9
    assert noise.across[1] == 0.0


def test_a_label_with_a_single_gradient_is_hidden_too():
    labels = TwoLabels(dimensions=100, gap=1.0, variances=(0.0, 0.1), share=0.9)
    noise = best_noise(labels, 4.0)
    assert noise.power(labels) == pytest.approx(4.0)
    assert math.isfinite(divergence(labels, noise))
    # Both without: there is nothing across the gap to be told apart by.
    still = TwoLabels(dimensions=100, gap=1.0, variances=(0.0, 0.0), share=0.5)
    assert best_noise(still, 4.0).along == pytest.approx((4.0, 4.0), rel=1e-5)


# More than two labels.


def pairwise(means, variance, covariance):
    """The sum of all pairs' divergences, with whole matrices."""
    inverse = np.linalg.inv(covariance + variance * np.eye(means.shape[1]))
    return sum(
        (means[i] - means[j]) @ inverse @ (means[i] - means[j])
        for i in range(len(means))
        for j in range(i)
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(2, 8), variances, budgets, st.integers(0, 2**32))
def test_no_other_shared_noise_of_that_power_does_better(count, dimensions, variance, power, seed):
    random = np.random.default_rng(seed)
    means = random.normal(size=(count, dimensions)) * random.exponential(size=dimensions)
    directions, found = (
        one.numpy() for one in shared_noise(torch.from_numpy(means), variance, power)
    )
    assert found.sum() == pytest.approx(power)
    assert (found > 0).all()
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(found)), atol=1e-9)
    covariance = directions.T @ np.diag(found) @ directions
    best = pairwise(means, variance, covariance)
    for scale in (1.0, 1e-2, 1e-4):
        for _ in range(30):
            half = random.normal(size=(dimensions, dimensions))
            other = half @ half.T
            mixed = covariance + scale * power * other / np.trace(other)
            mixed *= power / np.trace(mixed)
            assert best <= pairwise(means, variance, mixed) * (1 + 1e-9)


@pytest.mark.parametrize("power", [0.2, 5.0])
def test_for_two_labels_that_vary_alike_the_shared_noise_is_the_papers(power):
    means = np.random.default_rng(0).normal(size=(2, 20))
    gap = means[1] - means[0]
    directions, found = (one.numpy() for one in shared_noise(torch.from_numpy(means), 0.4, power))
    assert abs(directions[0] @ gap) == pytest.approx(np.linalg.norm(gap))
    labels = TwoLabels(dimensions=20, gap=gap @ gap, variances=(0.4, 0.4), share=0.5)
    assert [found[0]] * 2 == pytest.approx(best_noise(labels, power).along)
