"""A figure: panels of SVG, what their curves are, the same in words, and the same in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulations.reporting.figures.chart import Curve
from simulations.reporting.formats.markup import Markup
from simulations.reporting.groups import Group
from simulations.reporting.table import Label, Table


@dataclass(frozen=True)
class Key:
    """One line of a legend."""

    name: Label
    style: int
    dashed: bool = False
    line: bool = True


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
    more : sequence of Panel
        The same seen otherwise, folded away.
    more_heading : str
        What is folded away.
    """

    slug: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Key, ...]
    data: Table
    more: tuple[Panel, ...] = ()
    more_heading: str = ""


def legend(groups: Iterable[Group], line: bool = True) -> tuple[Key, ...]:
    """Return a legend in which each group has its own colour and marker."""
    return tuple(Key(group.name(), group.number, line=line) for group in groups)


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
