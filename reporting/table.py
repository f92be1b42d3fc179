"""A table: columns that say what they hold and what is better, over a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from split_unlearning.reporting.values import Label, Style, Summary, Value, style_for

Better = Literal["higher", "lower", "zero", ""]

BETTER = {"higher": "higher is better", "lower": "lower is better", "zero": "best is nearest to 0"}


@dataclass(frozen=True)
class Column:
    """One column.

    `slug` names it in the CSV, `name` for people, and `group` names what it shares with the columns
    beside it. `unit` is that of its numbers (`values.style_for`), empty for a column of texts. The
    numbers of a `signed` column are differences; those of a `fixed` column are no means over seeds.
    A `folded` column is for programs alone: it stands in the CSV only.
    """

    slug: str
    name: str
    group: str = ""
    unit: str = ""
    better: Better = ""
    signed: bool = False
    fixed: bool = False
    folded: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it holds texts."""
        return not self.unit


@dataclass(frozen=True)
class Table:
    """A table; `slug` is the stem of its files' names, `notes` are what a reader has to know.

    `frame` has a row a line. A column of texts holds a `Label` or None under its slug. A column of
    numbers holds its means under its slug (NaN where nothing was measured), and the deviation and
    the count of each under ``SLUG_sd`` and ``SLUG_n``.
    """

    slug: str
    title: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def for_people(self) -> list[Column]:
        """The columns without those that are for programs alone."""
        return [column for column in self.columns if not column.folded]

    @property
    def measures(self) -> bool:
        """Whether it has a number that is not a count."""
        return any(column.unit not in ("", "count") for column in self.columns)

    def rows(self) -> Iterator[dict[str, Value]]:
        """Yield each row by the slugs of its columns."""
        for line in self.frame.to_dict("records"):
            yield {column.slug: _value(column, line) for column in self.columns}

    def style(self, column: Column) -> Style:
        """Return how the numbers of a column, and of those grouped with it, are written."""
        alike = [
            one.slug
            for one in self.columns
            if one == column or (column.group and _alike(one) == _alike(column) and not one.is_text)
        ]
        means = self.frame[alike].stack().dropna()
        return style_for(means.tolist(), column.unit, column.signed)

    def best(self, column: Column) -> frozenset[int]:
        """Return the rows with the best number of a column, as it is shown.

        Empty where no number is better than another: the column does not say what is better, there
        are fewer than two numbers, or all are the same.
        """
        if not column.better:
            return frozenset()
        style = self.style(column)
        shown = self.frame[column.slug].dropna().map(lambda value: float(style.mean(value)))
        worth = {"higher": shown, "lower": -shown, "zero": -shown.abs()}[column.better]
        best = worth[worth == worth.max()]
        return frozenset(best.index) if len(best) < len(worth) else frozenset()

    def seeds(self) -> pd.Series:
        """Return, for each row, the largest number of seeds that any of its numbers comes from."""
        counts = [f"{one.slug}_n" for one in self.columns if not one.is_text and not one.fixed]
        return self.frame[counts].max(axis=1)


def make_table(
    slug: str,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Value]],
    notes: Sequence[str] = (),
) -> Table:
    """Return a table from a value a column and row, without the columns that are empty."""
    lines = list(rows)
    kept: dict[str, Column] = {}
    data: dict[str, list[Any]] = {}
    for place, column in enumerate(columns):
        values = [line[place] for line in lines]
        if all(value is None for value in values):
            continue
        # A setting that the benchmark varies can have the name of a column.
        key = column.slug if column.slug not in kept else f"{column.slug}_{place}"
        kept[key] = replace(column, slug=key)
        if column.is_text:
            data[key] = values
            continue
        found = [value if isinstance(value, Summary) else None for value in values]
        data[key] = [one.mean if one else float("nan") for one in found]
        data[f"{key}_sd"] = [one.deviation if one else None for one in found]
        data[f"{key}_n"] = [one.count if one else 0 for one in found]
    frame = pd.DataFrame(
        {key: pd.Series(values, dtype=_dtype(key, kept)) for key, values in data.items()}
    )
    return Table(slug, title, tuple(kept.values()), frame, tuple(notes))


def _dtype(key: str, columns: dict[str, Column]) -> str:
    if key in columns:
        return "object" if columns[key].is_text else "float64"
    return "int64" if key.endswith("_n") else "float64"


def _value(column: Column, line: dict[Any, Any]) -> Value:
    found = line[column.slug]
    if column.is_text:
        return found if isinstance(found, Label) else None
    if pd.isna(found):
        return None
    deviation = line[f"{column.slug}_sd"]
    count = line[f"{column.slug}_n"]
    return Summary(found, None if pd.isna(deviation) else deviation, count)


def _alike(column: Column) -> tuple[str, str, bool]:
    return column.group, column.unit, column.signed
