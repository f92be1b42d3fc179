"""A figure: panels that matplotlib draws, their legend, and the same in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from split_unlearning.reporting.figures.chart import Chart
from split_unlearning.reporting.figures.shades import Shades
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.table import Table
from split_unlearning.reporting.values import Label


@dataclass(frozen=True)
class Key:
    """One line of a legend."""

    name: Label
    style: int
    dashed: bool = False
    line: bool = True
    marker: bool = True


@dataclass(frozen=True)
class Panel:
    """One picture of a figure, with its heading."""

    heading: str
    picture: Chart | Shades

    @property
    def wide(self) -> bool:
        """Whether it takes all the room that there is."""
        return isinstance(self.picture, Shades)


@dataclass(frozen=True)
class Figure:
    """A figure; `slug` is the stem of its files' names, and `caption` says how to read it.

    `data` is all that is drawn. `folded` holds more panels, under a heading each, that stand folded
    away in the page and are no files.
    """

    slug: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Key, ...]
    data: Table
    folded: tuple[tuple[str, tuple[Panel, ...]], ...] = ()


def legend(groups: Iterable[Group], line: bool = True) -> tuple[Key, ...]:
    """Return the legend of groups that are drawn in the styles 0, 1, 2, ..."""
    return tuple(Key(group.name(), style, line=line) for style, group in enumerate(groups))
