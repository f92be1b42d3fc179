"""Mean and spread over seeds, and how numbers are written."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.reporting.values import style_for, summarise

numbers = st.floats(-1e9, 1e9, allow_nan=False)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), numbers), max_size=8))
def test_mean_and_sample_deviation_are_those_of_what_was_measured(values):
    found = summarise(values)
    measured = [value for value in values if value is not None]
    if not measured:
        assert found is None
        return
    assert found.count == len(measured)
    assert found.mean == pytest.approx(np.mean(measured), rel=1e-9, abs=1e-6)
    if len(measured) == 1:
        assert found.deviation is None
    else:
        assert found.deviation == pytest.approx(np.std(measured, ddof=1), rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e13), min_size=1, max_size=6),
    st.sampled_from(["share", "bytes", "seconds", "bits", "value", "count"]),
)
def test_the_largest_number_of_a_column_is_shown_to_three_places(values, unit):
    style = style_for(values, unit)
    largest = max(values)
    if unit == "share":
        assert style.decimals == 1
        assert style.unit == "%"
    shown = float(style.mean(largest)) / style.factor
    error = 0.5 if unit == "bytes" and style.factor == 1 else 0.006 * largest
    assert abs(shown - largest) <= max(error, 0.0005 if unit == "share" else 0)
    assert len(style.mean(largest)) < 20


def test_all_numbers_of_a_column_have_one_unit():
    style = style_for([2_500_000, 800, 0], "bytes")
    assert style.unit == "MB"
    assert [style.mean(value) for value in (2_500_000, 800, 0)] == ["2.500", "0.001", "0"]
    assert style_for([512], "bytes").mean(512) == "512"


def test_small_numbers_do_not_vanish_beside_large_ones():
    style = style_for([12.3, 0.05], "seconds")
    assert [style.mean(12.3), style.mean(0.05)] == ["12.300", "0.050"]


def test_a_difference_has_a_sign_and_no_negative_zero():
    style = style_for([0.1, -0.2], "share", signed=True)
    assert (style.mean(0.1), style.mean(-0.2), style.mean(-0.0001)) == ("+10.0", "-20.0", "0.0")
    assert style.unit == "points"


def test_nothing_at_all_is_told_from_what_is_too_small_to_show():
    style = style_for([1000.0, 0.001, 0.0], "seconds")
    assert style.mean(0.0) == "0"
    assert style.mean(0.0001) == "0.0"


def test_whole_counts_have_no_decimals():
    assert style_for([3, 12], "count").mean(12) == "12"
    assert style_for([2.5], "count").mean(2.5) == "2.50"
    assert math.isclose(float(style_for([0.375], "bits").mean(0.375)), 0.375)
