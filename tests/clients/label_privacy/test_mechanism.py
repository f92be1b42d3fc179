"""Clip, calibration, accounting and the distribution of the noise, each computed another way."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, NeighboringRelation
from dp_accounting.pld import PLDAccountant, privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from split_unlearning.clients.label_privacy.mechanism import Mechanism
from split_unlearning.clients.label_privacy.secrets import uniforms
from split_unlearning.foundations.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
SECRET = bytes(range(32))
KINDS = ("laplace", "gaussian")
UNITS = ("record", "element")
clips = st.floats(1e-3, 1e3)
smashed_data = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=4, max_side=5),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


def mechanism(kind="laplace", epsilon=1.0, delta=1e-5, clip=1.0, unit="record"):
    return Mechanism(kind, epsilon, delta, clip, unit)


# What is refused.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epsilon", value) for value in (0.0, -1.0, math.inf, math.nan)),
        *(("clip", value) for value in (0.0, -2.0, math.inf, math.nan)),
        *(("delta", value) for value in (0.0, 1.0, -0.1, 2.0, math.nan)),
        ("kind", "exponential"),
        ("unit", "sample"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(key, value):
    word = {"kind": "mechanism", "unit": "privacy-unit"}.get(key, key)
    given_ = {"kind": "gaussian", key: value}
    with pytest.raises(UserError, match=rf"^{word}={value!r} is not possible; allowed: ") as line:
        mechanism(**given_)
    assert "\n" not in str(line.value)


@pytest.mark.parametrize("delta", [-1e-9, 1.0, math.nan])
def test_laplace_needs_no_delta_but_takes_no_other(delta):
    assert mechanism(delta=0.0).spent(3).epsilon == 3.0
    with pytest.raises(UserError, match=r"^delta="):
        mechanism(delta=delta)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("unit", UNITS)
def test_what_no_clip_holds_is_refused(unit, value):
    smashed = np.zeros((3, 2), dtype=np.float32)
    smashed[1, 1] = value
    with pytest.raises(UserError, match=r"^smashed data hold numbers that are not finite"):
        mechanism(unit=unit).clip_records(smashed)


# The clip.


@given(smashed_data, clips, st.sampled_from(KINDS), st.sampled_from(UNITS))
@example(np.full((1, 3000), 0.1, np.float32), 0.7, "laplace", "record")
@example(np.full((1, 3000), 0.1, np.float32), 0.7, "gaussian", "record")
@example(np.full((1, 2), 0.1, np.float32), 0.1, "laplace", "element")
@settings(deadline=None)
def test_the_clip_holds_to_the_last_bit(smashed, clip, kind, unit):
    before = smashed.copy()
    one = mechanism(kind, clip=clip, unit=unit)
    clipped = one.clip_records(smashed)
    assert (smashed == before).all()
    assert clipped.dtype == np.float32
    assert clipped.shape == smashed.shape
    for record, was in zip(
        clipped.reshape(len(smashed), -1), smashed.reshape(len(smashed), -1), strict=True
    ):
        sizes = [abs(float(value)) for value in record]
        if unit == "element":
            assert max(sizes) <= clip
            assert np.allclose(record, np.clip(was, -clip, clip), rtol=1e-6, atol=0)
            continue
        if kind == "laplace":
            norm, norm_before = math.fsum(sizes), math.fsum(abs(float(value)) for value in was)
        else:
            norm, norm_before = math.hypot(*sizes), math.hypot(*map(float, was))
        assert norm <= clip
        if norm_before <= clip * (1 - 1e-9):
            assert (record == was).all()
        else:
            assert norm == pytest.approx(clip, rel=1e-6)
            assert np.allclose(record, was * (clip / norm_before), rtol=1e-6)
    # What is clipped already stays as it is.
    assert (one.clip_records(clipped) == clipped).all()


def test_no_records_are_clipped_to_none():
    for unit in UNITS:
        assert mechanism(unit=unit).clip_records(np.zeros((0, 2, 3), np.float32)).shape == (0, 2, 3)


# Calibration.


@pytest.mark.parametrize("unit", UNITS)
@given(st.floats(1e-3, 1e3), clips)
@settings(deadline=None)
def test_laplace_scale_is_sensitivity_over_epsilon(unit, epsilon, clip):
    one = mechanism(epsilon=epsilon, clip=clip, unit=unit)
    assert one.sensitivity == 2 * clip
    assert one.scale == 2 * clip / epsilon


def delta_of(sigma, epsilon, sensitivity):
    """Balle and Wang (2018), equation 6, in high precision."""
    import mpmath

    with mpmath.workdps(60):
        shift, slope = sensitivity / (2 * mpmath.mpf(sigma)), epsilon * sigma / sensitivity
        below = mpmath.exp(epsilon) * mpmath.ncdf(-shift - slope)
        return float(mpmath.ncdf(shift - slope) - below)


@pytest.mark.parametrize("epsilon", [0.1, 0.2, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.1])
@pytest.mark.parametrize("clip", [0.01, 30.0])
def test_gaussian_scale_is_the_analytic_mechanism(epsilon, delta, clip):
    one = mechanism("gaussian", epsilon, delta, clip)
    assert delta_of(one.scale, epsilon, 2 * clip) == pytest.approx(delta, rel=1e-6)
    # No less would do.
    assert delta_of(one.scale * 0.999, epsilon, 2 * clip) > delta
    twice = mechanism("gaussian", epsilon, delta, 2 * clip)
    assert twice.scale == 2 * one.scale


# Accounting.


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_release_costs_what_it_was_calibrated_to(kind, unit):
    for epsilon in (0.1, 1.0, 8.0):
        spent = mechanism(kind, epsilon, unit=unit).spent(1)
        # At a δ above 0 Laplace noise is a little better than its pure ε.
        assert spent.epsilon == pytest.approx(epsilon, rel=1e-3)
        assert (spent.delta, spent.unit, spent.releases) == (1e-5, unit, 1)
        assert spent.pure_epsilon == (epsilon if kind == "laplace" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_released_is_nothing_spent(kind):
    spent = mechanism(kind).spent(0)
    assert (spent.epsilon, spent.pure_epsilon) == (0, 0 if kind == "laplace" else None)
    with pytest.raises(ValueError, match="-1 releases"):
        mechanism(kind).spent(-1)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("releases", [2, 3, 30])
@pytest.mark.parametrize("clip", [0.5, 20.0])
def test_the_total_is_the_librarys_composition(epsilon, releases, clip):
    """Release by release and with another rounding, where `spent` takes a short cut."""
    laplace = mechanism("laplace", epsilon, clip=clip)
    one = privacy_loss_distribution.from_laplace_mechanism(
        laplace.scale, sensitivity=2 * clip, value_discretization_interval=epsilon / 3000
    )
    total = one
    for _ in range(releases - 1):
        total = total.compose(one)
    expected = total.get_epsilon_for_delta(1e-5)
    assert laplace.spent(releases).epsilon == pytest.approx(expected, rel=1e-4)
    # Replacing a record by another, inside a norm of `clip`, is a relation that the library knows.
    gaussian = mechanism("gaussian", epsilon, clip=clip)
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE, epsilon / 3000)
    accountant.compose(GaussianDpEvent(gaussian.scale / clip), releases)
    expected = accountant.get_epsilon(1e-5)
    assert gaussian.spent(releases).epsilon == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("releases", [1, 3, 12])
def test_other_ways_to_compose_are_upper_bounds(kind, epsilon, releases):
    one = mechanism(kind, epsilon)
    spent = one.spent(releases)
    event = LaplaceDpEvent if kind == "laplace" else GaussianDpEvent
    renyi = RdpAccountant()
    renyi.compose(event(one.scale / one.sensitivity), releases)
    assert spent.epsilon <= renyi.get_epsilon(1e-5)
    # By (ε, δ) alone the δ adds up too.
    basic = releases * epsilon
    if kind == "laplace":
        assert spent.pure_epsilon == basic
        assert spent.epsilon <= basic
    else:
        composed = delta_of(one.scale, basic, one.sensitivity * math.sqrt(releases))
        assert composed <= releases * 1e-5 * (1 + 1e-6)


def test_many_small_releases_cost_less_than_their_sum():
    spent = mechanism(epsilon=0.1).spent(300)
    assert spent.pure_epsilon == pytest.approx(30)
    assert spent.epsilon < 10


def test_a_large_epsilon_is_added_up():
    assert mechanism(epsilon=5e3).spent(4).epsilon == 2e4
    assert mechanism(epsilon=100.0).spent(4).epsilon == pytest.approx(400, rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_a_difference_in_one_coordinate_is_the_worst_case(epsilon):
    """`spent` composes that of one coordinate; records differ in many."""
    grid = {"value_discretization_interval": epsilon / 3000}
    make = privacy_loss_distribution.from_laplace_mechanism
    one = make(1 / epsilon, **grid)
    spread = make(1 / epsilon, sensitivity=0.25, **grid).self_compose(4)
    for share in (0.0, 0.3, 0.7, 0.99):
        losses = share * epsilon
        assert spread.get_delta_for_epsilon(losses) <= one.get_delta_for_epsilon(losses)


# The noise.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("clip", [0.05, 1.0, 400.0])
def test_the_noise_has_the_stated_distribution(kind, epsilon, clip):
    one = mechanism(kind, epsilon, clip=clip)
    zeros = np.zeros((400, 50), dtype=np.float32)
    drawn = uniforms(SECRET, np.arange(400), 50, kind, int(10 * epsilon), int(100 * clip))
    family = stats.laplace if kind == "laplace" else stats.norm
    wanted = family(scale=one.scale)
    assert np.allclose(one.noise(drawn), wanted.ppf(drawn), rtol=1e-9, atol=one.scale * 1e-12)
    released = one.released(zeros, drawn)
    assert released.dtype == np.float32
    assert stats.kstest(released.ravel(), wanted.cdf).pvalue > 0.01
    # Another scale is told apart, so that the test could have failed.
    assert stats.kstest(released.ravel(), family(scale=one.scale * 1.1).cdf).pvalue < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_is_finite_at_both_ends_and_symmetric(kind):
    ends = np.array([2.0**-53, 0.25, 0.5, 0.75, 1 - 2.0**-53])
    noise = mechanism(kind).noise(ends)
    assert np.isfinite(noise).all()
    assert (noise == -noise[::-1]).all()
    assert noise[2] == 0


@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(-0.25, 0.25, width=32)),
    st.sampled_from(KINDS),
    st.floats(0.01, 50),
    st.integers(0, 2**40),
)
@settings(deadline=None)
def test_low_bits_of_what_is_released_tell_nothing(record, kind, epsilon, number):
    """Every number is on one grid, whatever was masked, and next to the sum."""
    one = mechanism(kind, epsilon)
    drawn = uniforms(SECRET, np.arange(number, number + 3), 4, "grid")
    released = one.released(record, drawn)
    grid = 2.0 ** math.floor(math.log2(one.scale) - 16)
    steps = released.astype(np.float64) / grid
    assert (steps == np.rint(steps)).all()
    assert (abs(released - (record + one.noise(drawn))) <= grid / 2).all()


def test_slow_libraries_are_loaded_only_by_who_needs_them():
    """Clients start often, and most of them mask nothing or need no calibration."""
    found = set()
    for path in (ROOT / "clients" / "label_privacy").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
    assert {"numpy", "split_unlearning"} <= found
    assert {"dp_accounting", "scipy", "sklearn", "threadpoolctl"} & found == set()
