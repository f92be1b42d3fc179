"""Which number of a column is the best, and which columns are shown."""

from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Label, Table

summaries = st.one_of(st.none(), st.floats(-100, 100).map(Summary))


def column(values, better="higher", unit="share", **more):
    made = Column("value", "value", unit=unit, better=better, **more)
    return Table("t", "t", (made,), tuple((value,) for value in values))


def best(*values, **more):
    return column([None if value is None else Summary(value) for value in values], **more).best(0)


@settings(deadline=None)
@given(st.lists(summaries, max_size=6), st.sampled_from(["higher", "lower", "zero", ""]))
def test_the_best_are_those_that_no_other_is_shown_to_beat(values, better):
    table = column(values, better)
    style = table.style(0)
    worth = {"higher": lambda x: x, "lower": lambda x: -x, "zero": lambda x: -abs(x)}.get(better)
    shown = {n: float(style.mean(v.mean)) for n, v in enumerate(values) if v is not None}
    beaten = {
        n
        for n in shown
        if worth and any(worth(other) > worth(shown[n]) for other in shown.values())
    }
    found = table.best(0)
    # Something is the best only where something else is worse.
    assert found == (frozenset(set(shown) - beaten) if beaten else frozenset())


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


def test_a_column_that_is_empty_in_all_rows_is_not_shown():
    columns = (Column("a", "a"), Column("b", "b", unit="share"), Column("c", "c", unit="share"))
    rows = ((Label("x"), None, None), (Label("y"), None, Summary(0.5)))
    shown = Table("t", "t", columns, rows).shown()
    assert [one.slug for one in shown.columns] == ["a", "c"]
    assert shown.rows == ((Label("x"), None), (Label("y"), Summary(0.5)))


def test_columns_of_a_group_are_shown_in_one_unit():
    columns = tuple(Column(name, name, group="upload", unit="bytes") for name in "ab")
    table = Table("t", "t", columns, ((Summary(2_000_000.0), Summary(300.0)),))
    assert table.style(0) == table.style(1)
    assert table.header(1) == "upload: b, MB"
