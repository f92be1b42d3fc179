"""Which number of a column is the best, and which columns a table has."""

from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, Summary

summaries = st.one_of(st.none(), st.floats(-100, 100).map(Summary))


def column(values, better="higher", unit="share", **more):
    columns = (Column("row", "row"), Column("value", "value", unit=unit, better=better, **more))
    return make_table("t", "t", columns, [(Label("x"), value) for value in values])


def best(*values, **more):
    table = column([None if value is None else Summary(value) for value in values], **more)
    return table.best(table.columns[-1])


@settings(deadline=None)
@given(st.lists(summaries, max_size=6), st.sampled_from(["higher", "lower", "zero", ""]))
def test_the_best_are_those_that_no_other_is_shown_to_beat(values, better):
    table = column(values, better)
    if not any(values):
        return
    value = table.columns[-1]
    style = table.style(value)
    worth = {"higher": lambda x: x, "lower": lambda x: -x, "zero": lambda x: -abs(x)}.get(better)
    shown = {n: float(style.mean(v.mean)) for n, v in enumerate(values) if v is not None}
    beaten = {
        n
        for n in shown
        if worth and any(worth(other) > worth(shown[n]) for other in shown.values())
    }
    # Something is the best only where something else is worse.
    assert table.best(value) == (frozenset(set(shown) - beaten) if beaten else frozenset())


def test_better_can_be_more_less_or_nearer_to_nothing():
    assert best(0.1, 0.9) == {1}
    assert best(0.1, 0.9, better="lower") == {0}
    assert best(-0.1, 0.2, better="zero", signed=True) == {0}
    assert best(0.1, 0.9, better="") == frozenset()


def test_nothing_is_best_among_equals_or_alone():
    assert best(0.5, 0.5) == frozenset()
    assert best(0.5, None) == frozenset()
    # They are shown alike.
    assert best(0.50001, 0.5) == frozenset()


def test_all_that_are_shown_as_the_best_are():
    assert best(0.9, 0.90001, 0.1, None) == {0, 1}


def test_a_column_that_is_empty_in_all_rows_is_not_there():
    columns = (Column("a", "a"), Column("b", "b", unit="share"), Column("c", "c", unit="share"))
    rows = ((Label("x"), None, None), (Label("y"), None, Summary(0.5)))
    made = make_table("t", "t", columns, rows)
    assert list(made.rows()) == [
        {"a": Label("x"), "c": None},
        {"a": Label("y"), "c": Summary(0.5)},
    ]


def test_two_columns_of_one_name_are_told_apart():
    columns = (Column("samples", "samples"), Column("samples", "accuracy on"))
    made = make_table("t", "t", columns, [(Label("100"), Label("forgotten"))])
    assert list(made.rows()) == [{"samples": Label("100"), "samples_1": Label("forgotten")}]


def test_columns_of_a_group_are_shown_in_one_unit():
    columns = tuple(Column(name, name, group="upload", unit="bytes") for name in "ab")
    made = make_table("t", "t", columns, ((Summary(2_000_000.0), Summary(300.0)),))
    assert made.style(made.columns[0]) == made.style(made.columns[1])
    assert made.style(made.columns[1]).unit == "MB"
