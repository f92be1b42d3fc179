"""A table: columns that say what they hold and what is better, and rows of labels and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from split_unlearning.reporting.statistic import Style, Summary, style_for

Better = Literal["higher", "lower", "zero", ""]

BETTER = {"higher": "higher is better", "lower": "lower is better", "zero": "best is nearest to 0"}


@dataclass(frozen=True)
class Label:
    """A text in a table.

    Parameters
    ----------
    text : str
        What is shown.
    full : str
        All of it, where `text` is shortened; else empty.
    tone : str
        ``good``, ``bad`` or ``open`` where the text is a verdict; else empty.
    """

    text: str
    full: str = ""
    tone: str = ""


Value = Label | Summary | None


@dataclass(frozen=True)
class Column:
    """One column.

    Parameters
    ----------
    slug : str
        Its name in a CSV.
    name : str
        Its name for people.
    group : str
        What several columns beside each other share; empty for none.
    unit : str
        Of numbers, see `statistic.style_for`; empty for a column of texts.
    better : str
        Which number is the best; empty where none is.
    signed : bool
        Whether its numbers are differences.
    fixed : bool
        Whether its numbers are no means over seeds.
    folded : bool
        Whether it is for programs alone: in the CSV.
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
    """A table.

    Parameters
    ----------
    slug : str
        The stem of its files' names.
    title : str
        What it shows.
    columns : sequence of Column
        From left to right.
    rows : sequence of sequences of Label, Summary or None
        One value a column; None where nothing was measured.
    notes : sequence of str
        What a reader has to know beside it.
    """

    slug: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()

    def shown(self) -> Table:
        """Return it without the columns that are empty in all rows."""
        return self._with(
            place
            for place, _ in enumerate(self.columns)
            if any(row[place] is not None for row in self.rows)
        )

    def for_people(self) -> Table:
        """Return it without the columns that are for programs alone."""
        return self._with(place for place, column in enumerate(self.columns) if not column.folded)

    def _with(self, places: Iterable[int]) -> Table:
        kept = list(places)
        return replace(
            self,
            columns=tuple(self.columns[place] for place in kept),
            rows=tuple(tuple(row[place] for place in kept) for row in self.rows),
        )

    @property
    def measures(self) -> bool:
        """Whether it has a number in any row that is not a count."""
        return any(
            isinstance(value, Summary) and column.unit != "count"
            for row in self.rows
            for column, value in zip(self.columns, row, strict=True)
        )

    def style(self, place: int) -> Style:
        """Return how the numbers of a column, and of those grouped with it, are shown."""
        column = self.columns[place]
        alike = [place]
        if column.group:
            said = (column.group, column.unit, column.signed)
            alike = [
                other
                for other, one in enumerate(self.columns)
                if (one.group, one.unit, one.signed) == said
            ]
        means = [one.mean for other in alike for one in _numbers(self.rows, other)]
        return style_for(means, column.unit, column.signed)

    def best(self, place: int) -> frozenset[int]:
        """Return the rows with the best number of a column, as it is shown.

        Empty where no number is better than another: nothing is said of it, there are fewer than
        two, or all are the same.
        """
        better = self.columns[place].better
        style = self.style(place)
        found = {
            number: style.mean(value.mean)
            for number, row in enumerate(self.rows)
            if isinstance(value := row[place], Summary)
        }
        if not better or len(set(found.values())) < 2:
            return frozenset()

        def worth(shown: str) -> float:
            value = float(shown)
            return {"higher": value, "lower": -value, "zero": -abs(value)}[better]

        most = max(map(worth, found.values()))
        best = frozenset(number for number, shown in found.items() if worth(shown) == most)
        return best if len(best) < len(found) else frozenset()

    def group_end(self, place: int) -> int:
        """Return the place after the last column of the group that starts at a place."""
        group, end = self.columns[place].group, place + 1
        while group and end < len(self.columns) and self.columns[end].group == group:
            end += 1
        return end

    def header(self, place: int) -> str:
        """Return a column's name with its group and unit, in one line."""
        column = self.columns[place]
        name = f"{column.group}: {column.name}" if column.group else column.name
        unit = "" if column.is_text else self.style(place).unit
        return f"{name}, {unit}" if unit else name


def seeds(row: Sequence[Value]) -> int:
    """Return the largest number of values that a number of a row comes from."""
    return max((value.count for value in row if isinstance(value, Summary)), default=0)


def _numbers(rows: Sequence[Sequence[Value]], place: int) -> list[Summary]:
    return [value for row in rows if isinstance(value := row[place], Summary)]
