"""A figure: panels of SVG, what their curves are, the same in words, and the same in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from split_unlearning.reporting.figures.chart import Curve
from split_unlearning.reporting.formats.markup import Markup
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.table import Label, Table


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
    """One chart of a figure, with its heading; `wide` if it takes all the room that there is."""

    heading: str
    chart: Markup
    wide: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure.

    Parameters
    ----------
    slug : str
        The stem of its data's file name.
    title, caption : str
        What it shows, and how to read it.
    panels : sequence of Panel
        At least one.
    legend : sequence of Key
        What the curves are; empty where the panels say it.
    data : Table
        All that is drawn.
    folded : sequence of pairs of str and sequence of Panel
        More panels under a heading each, folded away.
    """

    slug: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Key, ...]
    data: Table
    folded: tuple[tuple[str, tuple[Panel, ...]], ...] = ()


def styles(groups: Iterable[Group]) -> dict[int, int]:
    """Return a style of its own for each group that is drawn, by the group's number."""
    return {group.number: style for style, group in enumerate(groups)}


def legend(groups: Iterable[Group], line: bool = True) -> tuple[Key, ...]:
    """Return the legend for groups in their `styles`."""
    return tuple(Key(group.name(), style, line=line) for style, group in enumerate(groups))


def in_words(heading: str, curves: Iterable[Curve], x: str, y: str) -> str:
    """Return what a chart shows as a text: where each curve starts and where it ends."""
    said = []
    for curve in curves:
        if not curve.points:
            continue
        first, last = curve.points[0], curve.points[-1]
        if len(curve.points) == 1:
            said.append(f"{curve.name}: {first.said}")
        else:
            said.append(f"{curve.name}: from {first.said} to {last.said}")
    return f"{heading}: {y} by {x}. " + "; ".join(said) + "."
