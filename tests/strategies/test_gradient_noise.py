"""Noise on the gradients of a batch: its distribution, and what it leaves alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from split_unlearning.strategies.server.gradient_noise import GradientNoise, marvell, max_norm
from split_unlearning.strategies.server.marvell import TwoLabels, best_noise, shared_noise
from tests.refusals import refusal

DRAWS = 4000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def noisy(noise, gradient, *labels):
    """Noise for a batch that holds each gradient many times, so that nothing but the draw differs.

    Its means, variances and shares are those of the batch; float64, shape (draws, n, d).
    """
    many = [one.repeat(DRAWS) for one in labels]
    return noise(gradient.repeat(DRAWS, 1), *many).reshape(DRAWS, *gradient.shape).numpy()


def test_max_norm_stretches_each_gradient_along_itself_to_the_norm_of_the_largest():
    gradient = rows(5, 3) * torch.tensor([0.1, 1.0, 3.0, 0.5, 0.01])[:, None]
    drawn = noisy(lambda many: max_norm(many, generator(1)), gradient)
    norms = gradient.norm(dim=1).numpy()
    # Each stays on its line.
    factors = (drawn * gradient.numpy()).sum(axis=2) / norms**2
    np.testing.assert_allclose(drawn, factors[:, :, None] * gradient.numpy(), atol=1e-12)
    largest = int(norms.argmax())
    for sample, norm in enumerate(norms):
        deviation = math.sqrt(norms.max() ** 2 / norm**2 - 1)
        if sample == largest:
            assert (drawn[:, sample] == gradient[sample].numpy()).all()
            continue
        assert kstest((factors[:, sample] - 1) / deviation, "norm").pvalue > 0.001
        squared = (drawn[:, sample] ** 2).sum(axis=1).mean()
        assert squared == pytest.approx(norms.max() ** 2, rel=0.15)


def test_a_gradient_of_zero_stays_zero():
    gradient = torch.zeros(3, 4, dtype=torch.float64)
    assert torch.equal(max_norm(gradient, generator()), gradient)
    assert torch.equal(marvell(gradient, torch.tensor([0, 1, 2]), 1.0, generator()), gradient)
    gradient[1, 2] = 5.0
    assert torch.equal(max_norm(gradient, generator()), gradient)


def test_with_two_labels_the_noise_has_the_covariances_of_the_paper():
    labels = torch.tensor([4, 4, 7, 4, 4, 7, 4])
    gradient = rows(7, 4) * torch.where(labels == 4, 0.2, 0.6)[:, None]
    gradient[labels == 7] += 1.0
    zero, one = (gradient[labels == label] for label in (4, 7))
    gap = one.mean(dim=0) - zero.mean(dim=0)
    spread = [float((each - each.mean(dim=0)).square().mean()) for each in (zero, one)]
    squared = float(gap.square().sum())
    noise = best_noise(
        TwoLabels(dimensions=4, gap=squared, variances=tuple(spread), share=2 / 7), 1.5 * squared
    )
    assert 0 < noise.across[0] < noise.along[0]
    drawn = noisy(lambda *many: marvell(*many, 1.5, generator(1)), gradient, labels)
    drawn -= gradient.numpy()
    direction = (gap / gap.norm()).numpy()
    turned = np.linalg.qr(np.column_stack([direction, np.eye(4)[:, :3]]))[0].T
    for sample, label in enumerate((labels == 7).int().tolist()):
        coordinates = drawn[:, sample] @ turned.T
        deviations = np.sqrt([noise.along[label], *[noise.across[label]] * 3])
        for coordinate, deviation in zip(coordinates.T, deviations, strict=True):
            if deviation == 0:
                np.testing.assert_allclose(coordinate, 0, atol=1e-9)
            else:
                assert kstest(coordinate / deviation, "norm").pvalue > 0.001
        expected = np.diag(deviations**2)
        np.testing.assert_allclose(np.cov(coordinates.T), expected, atol=0.08 * expected.max())
    # As much power as was allowed, in the mean over the batch.
    assert (drawn**2).sum(axis=2).mean() == pytest.approx(1.5 * squared, rel=0.05)


def test_with_more_labels_all_share_the_noise_that_hides_their_pairs_best():
    labels = torch.tensor([0, 3, 9, 0, 3, 9, 9, 3])
    gradient = rows(8, 5) + labels[:, None] * torch.tensor([0.3, 0.0, 0.1, 0.0, 0.0])
    means = torch.stack([gradient[labels == label].mean(dim=0) for label in (0, 3, 9)])
    squared = [float((means[i] - means[j]).square().sum()) for i in range(3) for j in range(i)]
    where = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])
    variance = float((gradient - means[where]).square().mean())
    budget = 2.0 * float(np.mean(squared))
    directions, variances = shared_noise(means, variance, budget)
    expected = (directions.T @ variances.diag() @ directions).numpy()
    drawn = noisy(lambda *many: marvell(*many, 2.0, generator(1)), gradient, labels)
    drawn -= gradient.numpy()
    for sample in (0, 1, 2):
        covariance = np.cov(drawn[:, sample].T)
        np.testing.assert_allclose(covariance, expected, atol=0.06 * budget)
    assert (drawn**2).sum(axis=2).mean() == pytest.approx(budget, rel=0.05)


def test_one_label_alone_is_left_as_it_is():
    gradient = rows(6, 4)
    assert torch.equal(marvell(gradient, torch.full((6,), 3), 1.0, generator()), gradient)


kinds = st.sampled_from([GradientNoise("max-norm"), GradientNoise("marvell", 0.7)])


@settings(deadline=None, max_examples=60)
@given(kinds, st.integers(1, 12), st.integers(0, 2**32), st.floats(-12, 12))
def test_any_batch_comes_back_in_its_shape_finite_and_the_same_twice(noise, samples, seed, scale):
    random = generator(seed)
    gradient = torch.randn(samples, 2, 3, 3, generator=random) * math.exp(scale)
    labels = torch.randint(0, 4, (samples,), generator=random)
    before = gradient.clone()
    noisy = noise.added_to(gradient, labels, seed)
    assert noisy.shape == gradient.shape
    assert noisy.dtype == torch.float32
    assert noisy.isfinite().all()
    assert torch.equal(gradient, before)
    assert torch.equal(noisy, noise.added_to(gradient, labels, seed))
    if samples > 1:
        assert (labels.unique().numel() == 1 and noise.needs_labels) or not torch.equal(
            noisy, noise.added_to(gradient, labels, seed + 1)
        )


@settings(deadline=None, max_examples=30)
@given(kinds, st.integers(0, 2**32))
def test_noise_grows_with_the_gradients(noise, seed):
    """The mean over a batch makes gradients smaller by its size; the protection is the same."""
    gradient = torch.randn(9, 6, generator=generator(seed))
    labels = torch.arange(9) % 3
    left, right = (noise.added_to(gradient * scale, labels, seed) for scale in (1.0, 2.0**-7))
    torch.testing.assert_close(left * 2.0**-7, right, rtol=1e-3, atol=1e-6)


def test_what_does_not_go_together_is_refused_in_one_line():
    assert refusal(GradientNoise, "iso", error=ValueError) == (
        "gradient-noise='iso' is not possible; allowed: max-norm, marvell"
    )
    for power in (0.0, -1.0, math.nan, math.inf):
        message = refusal(GradientNoise, "marvell", power, error=ValueError)
        assert message.startswith(f"gradient-noise-power={power!r} is not possible; allowed: a nu")
    message = refusal(GradientNoise, "max-norm", 1.0, error=ValueError)
    assert message.startswith("gradient-noise-power=1.0 is not possible; allowed: 0 (gradient-")
    with pytest.raises(ValueError, match=r"marvell.* needs labels, and none were sent"):
        GradientNoise("marvell", 1.0).added_to(torch.ones(2, 3), None, 0)
