"""A plug-in's own settings: declared, read with their types, refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import Option, merged, read_options, read_value

DECLARED = {
    "count": Option(3, "an integer > 0", lambda value: value > 0),
    "share": Option(0.5),
    "name": Option("blue"),
    "fast": Option(False),
}
DEFAULTS = {"count": 3, "share": 0.5, "name": "blue", "fast": False}


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("", {}),
        ("  ", {}),
        ("count=7", {"count": 7}),
        ("share=1 fast=true", {"share": 1.0, "fast": True}),
        ("name='two words' fast=False", {"name": "two words", "fast": False}),
        ("name=x=y", {"name": "x=y"}),
        ("name=", {"name": ""}),
        ("count=1 count=2", {"count": 2}),
    ],
)
def test_options_are_read_with_the_types_of_their_defaults(text, changed):
    read = read_options(text, DECLARED)
    assert read == {**DEFAULTS, **changed}
    assert {name: type(value) for name, value in read.items()} == {
        name: type(value) for name, value in DEFAULTS.items()
    }


@pytest.mark.parametrize(
    ("text", "shown", "allowed"),
    [
        ("count=0", "count=0", "count, an integer > 0"),
        ("count=1.5", "count=1.5", "count, an integer > 0"),
        ("share=half", "share=half", "share, a number"),
        ("fast=1", "fast=1", "fast, true or false"),
        ("cuont=1", "cuont=1", "count, an integer > 0; share, a number; name, a text; fast, true"),
        ("count", "count", "'name=value name=value'"),
        ("=1", "=1", "'name=value name=value'"),
        ("count = 1", "count = 1", "'name=value name=value'"),
        ("name='x", "name='x", "'name=value name=value' (No closing quotation)"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(text, shown, allowed):
    with pytest.raises(UserError) as refusal:
        read_options(text, DECLARED)
    assert str(refusal.value).startswith(f"options={shown!r} is not possible; allowed: {allowed}")
    assert "\n" not in str(refusal.value)


def test_where_nothing_is_declared_nothing_can_be_set():
    assert read_options("", {}) == {}
    with pytest.raises(UserError, match=r"options='a=1' .* has settings of its own"):
        read_options("a=1", {})


def test_two_classes_may_declare_one_option_but_not_two_of_one_name():
    assert merged({"a": Option(1)}, {"b": Option("")}, {}) == {"a": Option(1), "b": Option("")}
    assert merged(DECLARED, DECLARED) == DECLARED
    with pytest.raises(UserError, match="'a' is declared twice"):
        merged({"a": Option(1)}, {"a": Option(2)})


@given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()))
def test_a_value_is_read_from_its_text(value):
    assert read_value(value, str(value)) == value
    assert type(read_value(value, str(value))) is type(value)
