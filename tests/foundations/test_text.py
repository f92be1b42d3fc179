"""Numbers and structures in text that a stranger wrote."""

import json
import tomllib

import pytest

from split_unlearning.foundations.text import parsed, whole_number


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_digits_are_a_number(text, number):
    assert whole_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", " 1", "1_0", "1.0", "\u0663", "1" * 19, "1" * 5000]
)
def test_everything_else_is_none(text):
    assert whole_number(text) is None


@pytest.mark.parametrize(("parse", "start"), [(json.loads, ""), (tomllib.loads, "x = ")])
def test_what_is_nested_too_deeply_does_not_parse(parse, start):
    assert parsed(parse, f"{start}[[1]]")
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed(parse, start + "[" * 100_000 + "]" * 100_000)
