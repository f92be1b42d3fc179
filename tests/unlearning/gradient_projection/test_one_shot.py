"""The authors' one-shot form: what is projected out is gone, and every size has its bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from split_unlearning.unlearning.gradient_projection.one_shot import (
    VARIANTS,
    WEIGHTINGS,
    clipped,
    excise,
    orthonormal,
    principal,
    step_along,
    step_weights,
)

seeds, counts = st.integers(0, 10**6), st.integers(1, 6)


def drawn(seed, count, size=11):
    vectors = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return torch.stack([clipped(vector) for vector in vectors])


@given(seeds, counts)
@settings(deadline=None)
def test_without_a_variant_it_is_the_weighted_sum(seed, count):
    vectors, weights = drawn(seed, count), torch.rand(count)
    expected = sum(w * v.double() for w, v in zip(weights, vectors, strict=True))
    torch.testing.assert_close(excise(vectors, weights, "none").double(), expected)


@pytest.mark.parametrize(("variant", "components"), [("pca", 1), ("pca-gs", 2)])
@given(seed=seeds, count=counts)
@settings(deadline=None)
def test_nothing_is_left_along_the_principal_components(variant, components, seed, count):
    vectors = drawn(seed, count)
    left = excise(vectors, step_weights("U", count), variant)
    for direction in principal(vectors, components):
        assert abs(left @ direction) <= 1e-5


@given(seeds, st.integers(4, 8))
@settings(deadline=None, max_examples=20)
def test_the_principal_components_are_scikit_learns(seed, count):
    vectors = drawn(seed, count)
    ours = principal(vectors, 2).double()
    theirs = torch.from_numpy(PCA(2).fit(vectors.double().numpy()).components_)
    sizes = PCA().fit(vectors.double().numpy()).singular_values_
    if min(sizes[0] - sizes[1], sizes[1] - sizes[2]) < 0.05:
        return  # nearly equal ones may be turned into each other
    torch.testing.assert_close((ours @ theirs.T).abs(), torch.eye(2).double(), atol=1e-3, rtol=0)


@given(seeds, counts)
@settings(deadline=None)
def test_nothing_is_left_along_the_first_forget_gradient_with_gs(seed, count):
    vectors = drawn(seed, count)
    left = excise(vectors, step_weights("none", count), "gs")
    assert abs(left @ vectors[0]) <= 1e-5


@given(seeds, counts)
@settings(deadline=None)
def test_nothing_is_left_along_the_last_forget_gradient_with_raw(seed, count):
    """Each in turn: what is taken out later may bring back a little of what was earlier."""
    vectors = drawn(seed, count)
    left = excise(vectors, step_weights("none", count, edge_boost=1.0), "raw")
    assert abs(left @ vectors[-1]) <= 1e-5
    expected = vectors.double().sum(dim=0)
    for vector in vectors.double():
        expected = expected - (expected @ vector) / (vector @ vector) * vector
    torch.testing.assert_close(left.double(), expected, atol=1e-5, rtol=1e-4)


@given(seeds, counts)
@settings(deadline=None)
def test_the_basis_is_orthonormal_and_gs_noproj_is_its_sum(seed, count):
    vectors = drawn(seed, count)
    vectors = torch.cat([vectors, vectors[:1]])  # adds nothing new
    basis = orthonormal(vectors)
    assert len(basis) == count
    torch.testing.assert_close(basis @ basis.T, torch.eye(count), atol=1e-5, rtol=0)
    assert ((basis @ vectors[:count].T).diagonal() > 0).all()
    left = excise(vectors, step_weights("U", count + 1), "gs-noproj")
    torch.testing.assert_close(left, basis.sum(dim=0))


@given(st.sampled_from(WEIGHTINGS), st.integers(1, 30), st.floats(0, 1), st.floats(1, 9))
@settings(deadline=None)
def test_the_weights_have_the_shape_that_they_are_named_by(weighting, steps, least, boost):
    weights = step_weights(weighting, steps, least, boost)
    inner = weights[1:-1]
    assert weights.shape == (steps,)
    assert ((inner >= least - 1e-6) & (inner <= 1 + 1e-6)).all()
    unboosted = step_weights(weighting, steps, least, 1.0)
    torch.testing.assert_close(weights[0], boost * unboosted[0])
    falling = unboosted.diff() <= 1e-6
    if weighting == "decreasing":
        assert falling.all()
    elif weighting == "increasing":
        assert (unboosted.diff() >= -1e-6).all()
    elif weighting == "U":
        torch.testing.assert_close(unboosted, unboosted.flip(0))
    else:
        assert (unboosted == 1).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_is_no_longer_than_its_bound(variant):
    gradients = [
        {"weight": 100 * drawn(n, 4).reshape(2, 22), "bias": drawn(n, 1)[0]} for n in range(9)
    ]
    step = step_along(gradients, 1000.0, variant, "U", 0.25, 4.0)
    assert step["weight"].shape == (2, 22)
    assert all(one.norm() <= 5 * (1 + 1e-5) for one in step.values())
    assert all(one.isfinite().all() for one in step.values())


def test_a_small_step_is_the_learning_rate_times_what_is_left():
    gradients = [{"bias": drawn(n, 1)[0]} for n in range(4)]
    stacked = torch.stack([one["bias"] for one in gradients])
    found = step_along(gradients, 0.01, "gs", "decreasing", 0.5, 2.0)["bias"]
    weights = torch.tensor([2.0, 5 / 6, 4 / 6, 1.0])
    torch.testing.assert_close(found, 0.01 * excise(stacked, weights, "gs"))


def test_a_gradient_of_zeros_and_no_gradient_at_all_do_nothing():
    zeros = [{"bias": torch.zeros(3)}] * 2
    for variant in VARIANTS:
        assert not step_along(zeros, 0.1, variant, "U", 0.25, 4.0)["bias"].any()
        assert step_along([], 0.1, variant, "U", 0.25, 4.0) == {}
