"""The values of a table: texts, and numbers with their spread over seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

Tone = Literal["good", "bad", "open", ""]

_PREFIXES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))
# Neither HTML nor XML may hold these letters.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Label:
    """A text; `full` is all of it where it is shortened, `tone` colours a verdict."""

    text: str
    full: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of one measure over `count` seeds that measured it.

    The deviation divides by count - 1 and is None for a single value.
    """

    mean: float
    deviation: float | None = None
    count: int = 1

    def times(self, factor: float) -> Summary:
        """Return the same in another unit."""
        deviation = None if self.deviation is None else self.deviation * factor
        return Summary(self.mean * factor, deviation, self.count)


Value = Label | Summary | None


def summarise(values: Iterable[float | None]) -> Summary | None:
    """Return mean and spread of the values that were measured, None if there are none."""
    measured = [value for value in values if value is not None]
    if not measured:
        return None
    deviation = stdev(measured) if len(measured) > 1 else None
    return Summary(fmean(measured), deviation, len(measured))


@dataclass(frozen=True)
class Style:
    """How all numbers of a column are written, so that they can be compared at a glance."""

    factor: float = 1.0
    decimals: int = 0
    unit: str = ""
    signed: bool = False

    def mean(self, value: float) -> str:
        """Return a number as it is written; what is exactly 0 has no decimals."""
        if value == 0:
            return "0"
        shown = f"{value * self.factor:.{self.decimals}f}"
        if float(shown) == 0:
            return shown.lstrip("-")
        return f"+{shown}" if self.signed and value > 0 else shown

    def deviation(self, value: float) -> str:
        """Return a standard deviation as it is written."""
        return f"{value * self.factor:.{self.decimals}f}"


def style_for(values: Iterable[float], unit: str, signed: bool = False) -> Style:
    """Return how the numbers of one column are written.

    Parameters
    ----------
    unit
        ``share`` (written in percent), ``bytes``, ``seconds``, ``bits``, ``count``, or another word
        for a bare number.
    signed
        Whether the numbers are differences.
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    largest, smallest = max(sizes, default=0.0), min(sizes, default=0.0)
    if unit == "share":
        return Style(100.0, 1, "points" if signed else "%", signed)
    if unit == "bytes":
        prefix, size = next((one for one in reversed(_PREFIXES) if largest >= one[1]), _PREFIXES[0])
        decimals = 0 if size == 1 else _decimals(largest / size, smallest / size)
        return Style(1 / size, decimals, prefix, signed)
    shown = {"seconds": "s", "bits": "bits"}.get(unit, "")
    if all(value == int(value) for value in sizes) and unit == "count":
        return Style(1.0, 0, shown, signed)
    return Style(1.0, _decimals(largest, smallest), shown, signed)


def _decimals(largest: float, smallest: float) -> int:
    """Return digits that show the largest to three places, and of the smallest what they can."""
    if not largest:
        return 0
    for_largest = max(0, 2 - math.floor(math.log10(largest)))
    for_smallest = max(0, 1 - math.floor(math.log10(smallest)))
    # A number that needs many more digits than the largest is not worth them.
    needed = for_smallest if for_smallest <= for_largest + 2 else for_largest + 1
    return min(max(for_largest, needed), 9)


def percent(share: float) -> str:
    """Return a share in percent, without the sign."""
    return f"{100 * share:.6g}"


def size(value: float) -> str:
    """Return bytes with the prefixes of 1000."""
    prefix, one = next(
        (one for one in reversed(_PREFIXES) if value >= one[1] * 0.9995), _PREFIXES[0]
    )
    return f"{value / one:.4g} {prefix}"


def plain(value: float) -> str:
    """Return a number to four digits."""
    return f"{value:.4g}".replace("-", "\u2212")


def in_words(value: Summary, unit: str) -> str:
    """Return a mean and its deviation with their unit."""
    if unit == "bytes":
        spread = "" if value.deviation is None else f" ± {size(value.deviation)}"
        return size(value.mean) + spread
    style = style_for([value.mean], unit)
    shown = style.mean(value.mean)
    if value.deviation is not None:
        shown += f" ± {style.deviation(value.deviation)}"
    return f"{shown} {style.unit}".strip()


def printable(text: object) -> str:
    """Return a text in which letters that HTML and SVG cannot hold are replaced."""
    return _FORBIDDEN.sub("\ufffd", str(text))


def shortened(text: str, most: int = 40) -> str:
    """Return a text in one line of at most so many letters, for a picture."""
    line = " ".join(printable(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def plural(count: int, name: str) -> str:
    """Return a count with its noun."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def capital(text: str) -> str:
    """Return a text with a capital at its start, and the rest as it is."""
    return text[:1].upper() + text[1:]
