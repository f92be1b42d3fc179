"""Charts as SVG: curves and points, coloured by the page that they stand in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from split_unlearning.reporting.figures.scale import Scale
from split_unlearning.reporting.formats.markup import Markup, element, join

_MARKED = 12  # so many points of a line are all marked
STYLES = 8  # colours and markers; page.css has as many

_WIDTH, _HEIGHT = 380, 262
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 12, 46
LETTER = 6.4  # about as wide as a letter is


@dataclass(frozen=True)
class Point:
    """A point of a curve; `spread` to both sides of y, and what is said of it."""

    x: float
    y: float
    said: str
    spread: float = 0.0


@dataclass(frozen=True)
class Curve:
    """Points that belong together.

    Parameters
    ----------
    name : str
        For the text that stands for the chart.
    points : sequence of Point
        In the order in which they are joined.
    style : int
        Which colour and marker.
    line : bool
        Whether they are joined.
    dashed : bool
        How.
    markers : bool
        Whether points are marked; where many are joined by a line, some.
    band : bool
        Whether the spread is a band along the curve; else it is a bar at each mark.
    steps : bool
        Whether it goes from point to point in steps.
    """

    name: str
    points: tuple[Point, ...]
    style: int
    line: bool = True
    dashed: bool = False
    markers: bool = True
    band: bool = False
    steps: bool = False


@dataclass(frozen=True)
class Frame:
    """Where on the canvas the axes are."""

    x: Scale
    y: Scale
    left: float = _LEFT
    width: float = _WIDTH
    height: float = _HEIGHT
    bottom: float = _BOTTOM

    def across(self, value: float) -> float:
        """Return a value's place from the left."""
        return round(self.left + self.x.place(value) * (self.width - self.left - _RIGHT), 2)

    def down(self, value: float) -> float:
        """Return a value's place from the top."""
        part = 1 - self.y.place(value)
        return round(_TOP + part * (self.height - _TOP - self.bottom), 2)


def chart(curves: Sequence[Curve], x: Scale, y: Scale, alternative: str) -> Markup:
    """Return a chart.

    Parameters
    ----------
    curves : sequence of Curve
        Later ones lie above.
    x, y : Scale
        Its axes.
    alternative : str
        The same in words, for who does not see it.
    """
    longest = max((len(name) for _, name in y.ticks), default=0)
    frame = Frame(x, y, max(_LEFT, 32 + LETTER * longest))
    return element(
        "svg",
        element("title", alternative),
        _grid(frame),
        *(_band(frame, curve) for curve in curves if curve.line),
        *(_line(frame, curve) for curve in curves if curve.line and len(curve.points) > 1),
        *(_markers(frame, curve) for curve in curves),
        viewBox=f"0 0 {frame.width:g} {frame.height:g}",
        role="img",
        aria_label=alternative,
    )


def swatch(style: int, dashed: bool = False, line: bool = True, marker: bool = True) -> Markup:
    """Return a small picture of a curve, for a legend."""
    classes = f"curve{_dashes(style, dashed)}"
    stroke = element("line", x1=0, y1=7, x2=26, y2=7, class_=classes)
    return element(
        "svg",
        stroke if line else "",
        _marker(style, 13, 7) if marker and not dashed else "",
        viewBox="0 0 26 14",
        class_=f"swatch s{style % STYLES}",
        aria_hidden="true",
    )


def _grid(frame: Frame) -> Markup:
    left, right = frame.left, frame.width - _RIGHT
    top, bottom = _TOP, frame.height - frame.bottom
    parts: list[Markup] = []
    for value, name in frame.y.ticks:
        down = frame.down(value)
        parts.append(element("line", x1=left, y1=down, x2=right, y2=down, class_="grid"))
        parts.append(text_at(name, left - 8, down + 4, "end"))
    for value, name in _readable(frame):
        across = frame.across(value)
        parts.append(element("line", x1=across, y1=bottom, x2=across, y2=bottom + 4, class_="axis"))
        over = across + LETTER * len(name) / 2 > frame.width - 4
        anchor, at = ("end", frame.width - 1) if over else ("middle", across)
        parts.append(text_at(name, at, bottom + 18, anchor))
    parts.append(element("line", x1=left, y1=bottom, x2=right, y2=bottom, class_="axis"))
    turn = f"rotate(-90 13 {(top + bottom) / 2:g})"
    name = text_at(frame.y.label, 13, (top + bottom) / 2, "middle", class_="name", transform=turn)
    parts.append(name)
    middle = (left + right) / 2
    parts.append(text_at(frame.x.label, middle, frame.height - 8, "middle", class_="name"))
    return element("g", *parts, class_="frame")


def _readable(frame: Frame) -> list[tuple[float, str]]:
    """Return the ticks below the chart that do not run into each other."""
    kept: list[tuple[float, str]] = []
    end = 0.0
    for value, name in frame.x.ticks:
        across, half = frame.across(value), LETTER * len(name) / 2
        if across - half > end:
            kept.append((value, name))
            end = across + half + 4
    return kept


def _band(frame: Frame, curve: Curve) -> Markup:
    """Return what lies within the spread of a curve."""
    if not curve.band or not any(point.spread for point in curve.points):
        return Markup()
    upper = [(frame.across(p.x), frame.down(_within(frame, p.y + p.spread))) for p in curve.points]
    lower = [(frame.across(p.x), frame.down(_within(frame, p.y - p.spread))) for p in curve.points]
    outline = _joined([*upper, *reversed(lower)])
    return element("polygon", points=outline, class_=f"band s{curve.style % STYLES}")


def _line(frame: Frame, curve: Curve) -> Markup:
    places = [(frame.across(point.x), frame.down(point.y)) for point in curve.points]
    if curve.steps:
        corners = [(after[0], before[1]) for before, after in pairwise(places)]
        places = [
            places[0],
            *(one for pair in zip(corners, places[1:], strict=True) for one in pair),
        ]
    classes = f"curve s{curve.style % STYLES}{_dashes(curve.style, curve.dashed)}"
    return element("polyline", points=_joined(places), class_=classes)


def _dashes(style: int, dashed: bool) -> str:
    """Return the class of a dashed line; in the second round of colours the dashes are others."""
    return f" dashed r{style // STYLES % 3}" if dashed else ""


def _markers(frame: Frame, curve: Curve) -> Markup:
    if not curve.markers:
        return Markup()
    drawn = []
    many = curve.line and len(curve.points) > _MARKED
    every = math.ceil(len(curve.points) / (_MARKED / 2)) if many else 1
    # Not at the same places in all curves, which may lie above each other.
    first = curve.style % every
    for point in curve.points[first::every]:
        across, down = frame.across(point.x), frame.down(point.y)
        parts: list[Markup] = [element("title", f"{curve.name}: {point.said}")]
        if point.spread and not curve.band:
            ends = [frame.down(_within(frame, point.y + s * point.spread)) for s in (1, -1)]
            parts.append(
                element("line", x1=across, y1=ends[0], x2=across, y2=ends[1], class_="spread")
            )
        parts.append(_marker(curve.style, across, down))
        drawn.append(element("g", *parts))
    return element("g", *drawn, class_=f"s{curve.style % STYLES}")


def _marker(style: int, x: float, y: float) -> Markup:
    """Return the marker of a style; the shape tells curves apart without their colour."""
    r = 4.2
    # With as many colours as shapes, the second round of colours has other shapes.
    shape = (style + style // STYLES) % STYLES
    if shape == 0:
        return element("circle", cx=x, cy=y, r=r, class_="mark")
    if shape == 1:
        side = r * 1.75
        return element(
            "rect",
            x=f"{x - side / 2:.2f}",
            y=f"{y - side / 2:.2f}",
            width=side,
            height=side,
            class_="mark",
        )
    corners = {
        2: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        3: [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        4: [(0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
        5: [(-1.2, 0), (0.9, -1.15), (0.9, 1.15)],
        6: [(1.2, 0), (-0.9, -1.15), (-0.9, 1.15)],
    }
    if shape in corners:
        outline = _joined([(round(x + r * a, 2), round(y + r * b, 2)) for a, b in corners[shape]])
        return element("polygon", points=outline, class_="mark")
    return element("circle", cx=x, cy=y, r=r - 0.6, class_="mark open")


def text_at(content: str, x: float, y: float, anchor: str, **attributes: object) -> Markup:
    """Return a text at a place."""
    return element("text", content, x=f"{x:g}", y=f"{y:g}", text_anchor=anchor, **attributes)


def _within(frame: Frame, value: float) -> float:
    return min(max(value, frame.y.low), frame.y.high)


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return str(join(" ".join(f"{x:g},{y:g}" for x, y in places)))
