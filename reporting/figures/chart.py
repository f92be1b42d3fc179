"""A chart: curves and points over two axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from split_unlearning.reporting.values import percent, plain, shortened

COLOURS = 8
_MARKERS = "osD^v<>*"
_DASHES = ((0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))
_MARKED = 12  # so many points of a line are all marked
_SMALLEST = 1e-290  # what is smaller is drawn as 0
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks


@dataclass(frozen=True)
class Point:
    """A point of a curve, with its spread to both sides of y, and the same in words."""

    x: float
    y: float
    words: str = ""
    spread: float = 0.0


@dataclass(frozen=True)
class Curve:
    """Points that belong together, in the order in which they are joined.

    `style` is a number that stands for a colour and a marker. The spread of a curve is a `band`
    along it, or else a bar at each mark; `steps` joins the points by steps.
    """

    name: str
    points: tuple[Point, ...]
    style: int
    line: bool = True
    dashed: bool = False
    markers: bool = True
    band: bool = False
    steps: bool = False

    @property
    def every(self) -> slice:
        """Which points are marked; of many that a line joins, some."""
        if not self.line or len(self.points) <= _MARKED:
            return slice(None)
        every = math.ceil(len(self.points) / (_MARKED / 2))
        # Curves that lie above each other are marked at different places.
        return slice(self.style % every, None, every)


@dataclass(frozen=True)
class Axis:
    """An axis; ends that are None follow from the curves.

    `write` writes a tick. On a logarithmic axis that has a 0, that stands at the low end. An axis
    with `names` has a place for each at 0, 1, 2, ...
    """

    label: str
    write: Callable[[float], str] = plain
    low: float | None = None
    high: float | None = None
    log: bool = False
    names: tuple[str, ...] = ()


def share_axis(label: str, whole: bool = True) -> Axis:
    """Return an axis of shares in percent, from 0 to 100 % if `whole`."""
    return Axis(f"{label}, %", percent, *((0.0, 1.0) if whole else ()))


@dataclass(frozen=True)
class Chart:
    """Curves over two axes; later curves lie above. `words` say the same as a text."""

    curves: tuple[Curve, ...]
    x: Axis
    y: Axis
    words: str

    def draw(self) -> Figure:
        """Return the chart as a figure of matplotlib's."""
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        for number, curve in enumerate(self.curves):
            self._draw(axes, curve, number)
        _scale(axes, "x", self.x, [p.x for c in self.curves for p in c.points])
        _scale(axes, "y", self.y, [p.y for c in self.curves for p in c.points])
        return figure

    def tooltips(self) -> dict[str, list[str]]:
        """Return what is said of the marks of each curve, by the id that is drawn for it."""
        return {
            f"curve-{number}": [f"{curve.name}: {p.words}" for p in curve.points[curve.every]]
            for number, curve in enumerate(self.curves)
            if curve.markers and curve.points
        }

    def _draw(self, axes: Axes, curve: Curve, number: int) -> None:
        look = line_style(curve.style, curve.dashed, curve.line)
        # On a logarithmic axis a 0 stands at the low end.
        least = self.x.low if self.x.log and self.x.low else -math.inf
        x = [max(_drawn(point.x), least) for point in curve.points]
        y = [_drawn(point.y) for point in curve.points]
        low = 0.0 if self.y.write is percent or self.y.low == 0 else -math.inf
        if self.y.log:
            low = 10.0 ** math.floor(math.log10(min(p.y for c in self.curves for p in c.points)))
        high = 1.0 if self.y.write is percent else math.inf
        below = [max(low, point.y - point.spread) for point in curve.points]
        above = [min(high, point.y + point.spread) for point in curve.points]
        if any(point.spread for point in curve.points):
            if curve.band:
                axes.fill_between(
                    x, below, above, color=look["color"], alpha=0.15, linewidth=0, clip_on=False
                )
            elif curve.markers:
                axes.vlines(x, below, above, color=look["color"], linewidth=0.9, clip_on=False)
        if not curve.markers:
            look["marker"] = ""
        style = "steps-post" if curve.steps else "default"
        axes.plot(
            x,
            y,
            drawstyle=style,
            markevery=curve.every,
            gid=f"curve-{number}",
            clip_on=False,
            **look,
        )


def line_style(style: int, dashed: bool = False, line: bool = True) -> dict[str, Any]:
    """Return how matplotlib draws a style: no two of 64 styles look alike."""
    colour = rcParams["axes.prop_cycle"].by_key()["color"][style % COLOURS]
    # In the second round of colours the markers and the dashes are others.
    shape = (style + style // COLOURS) % COLOURS
    is_open = shape == COLOURS - 1
    return {
        "color": colour,
        "marker": "" if dashed else "o" if is_open else _MARKERS[shape],
        "markerfacecolor": "white" if is_open else colour,
        "markeredgecolor": colour if is_open else "white",
        "markersize": rcParams["lines.markersize"] * (0.85 if is_open else 1),
        "linestyle": "none" if not line else _DASHES[style // COLOURS % 3] if dashed else "-",
        "linewidth": rcParams["lines.linewidth"] * (0.75 if dashed else 1),
    }


def legend_line(style: int, dashed: bool, line: bool, marker: bool) -> Line2D:
    """Return a line that stands for a curve in a legend."""
    look = line_style(style, dashed, line)
    return Line2D([], [], **(look if marker else look | {"marker": ""}))


def describe(heading: str, curves: Iterable[Curve], x: str, y: str) -> str:
    """Return what a chart shows as a text: where each curve starts and where it ends."""
    said = []
    for curve in curves:
        first, last = curve.points[0], curve.points[-1]
        ends = f"from {first.words} to {last.words}" if len(curve.points) > 1 else first.words
        said.append(f"{curve.name}: {ends}")
    return f"{heading}: {y} by {x}. {'; '.join(said)}."


def _scale(axes: Axes, which: str, axis: Axis, values: Sequence[float]) -> None:
    drawn = axes.xaxis if which == "x" else axes.yaxis
    limits = axes.set_xlim if which == "x" else axes.set_ylim
    scale = axes.set_xscale if which == "x" else axes.set_yscale
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(axis.label)
    if axis.names:
        drawn.set_ticks(range(len(axis.names)), [shortened(name, 12) for name in axis.names])
        limits(-0.5, len(axis.names) - 0.5)
        return
    if axis.log and min(values) <= 0 and axis.low is None:
        smallest = min((value for value in values if value > 0), default=1.0)
        scale("symlog", linthresh=10.0 ** math.floor(math.log10(smallest)), linscale=0.5)
    elif axis.log:
        scale("log")
    else:
        drawn.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    limits(axis.low, axis.high)
    drawn.set_minor_locator(NullLocator())
    drawn.set_major_formatter(FuncFormatter(lambda value, _: axis.write(value)))


def _drawn(value: float) -> float:
    return 0.0 if abs(value) < _SMALLEST else value
