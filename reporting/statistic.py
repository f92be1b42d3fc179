"""What several seeds measured, as mean and sample standard deviation; and how numbers are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Unit = str

_PREFIXES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one measure.

    Parameters
    ----------
    mean : float
        Over what was measured.
    deviation : float or None
        Sample standard deviation (divided by count - 1); None of a single value.
    count : int
        How many values there are; seeds that did not measure it are not among them.
    """

    mean: float
    deviation: float | None = None
    count: int = 1

    @property
    def is_nothing(self) -> bool:
        """Whether every value is 0."""
        return self.mean == 0 and not self.deviation


def summarise(values: Iterable[float | None]) -> Summary | None:
    """Return mean and sample standard deviation of what was measured, None if nothing was."""
    measured = [value for value in values if value is not None]
    if not measured:
        return None
    deviation = stdev(measured) if len(measured) > 1 else None
    return Summary(fmean(measured), deviation, len(measured))


@dataclass(frozen=True)
class Style:
    """How all numbers of a column are shown, so that they can be compared at a glance.

    Parameters
    ----------
    factor : float
        What a number is multiplied with.
    decimals : int
        Digits after the point.
    unit : str
        What it then is in; empty for a bare number.
    signed : bool
        Whether a number above 0 has a sign.
    """

    factor: float = 1.0
    decimals: int = 0
    unit: str = ""
    signed: bool = False

    def mean(self, value: float) -> str:
        """Return a number as it is shown, with a hyphen for a minus; nothing at all is a bare 0."""
        if value == 0:
            return "0"
        shown = f"{value * self.factor:.{self.decimals}f}"
        if float(shown) == 0:
            return shown.lstrip("-")
        return f"+{shown}" if self.signed and value > 0 else shown

    def deviation(self, value: float) -> str:
        """Return a standard deviation as it is shown."""
        return f"{value * self.factor:.{self.decimals}f}"


def style_for(values: Sequence[float], unit: Unit, signed: bool = False) -> Style:
    """Return how the numbers of one column are shown.

    Parameters
    ----------
    values : sequence of float
        All that the column shows.
    unit : str
        What they are: ``share`` (shown in percent), ``bytes``, ``seconds``, ``bits``, ``count``, or
        another word for a bare number.
    signed : bool
        Whether they are differences.
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    largest, smallest = max(sizes, default=0.0), min(sizes, default=0.0)
    if unit == "share":
        return Style(100.0, 1, "points" if signed else "%", signed)
    if unit == "bytes":
        prefix, size = next((one for one in reversed(_PREFIXES) if largest >= one[1]), _PREFIXES[0])
        decimals = 0 if size == 1 else _decimals(largest / size, smallest / size)
        return Style(1 / size, decimals, prefix, signed)
    shown = {"seconds": "s", "bits": "bits", "Mbps": "Mbps"}.get(unit, "")
    if all(value == int(value) for value in sizes) and unit == "count":
        return Style(1.0, 0, shown, signed)
    return Style(1.0, _decimals(largest, smallest), shown, signed)


def _decimals(largest: float, smallest: float) -> int:
    """Return digits that show the largest to three places, and of the smallest what they can."""
    if not largest:
        return 0
    for_largest = max(0, 2 - math.floor(math.log10(largest)))
    for_smallest = max(0, 1 - math.floor(math.log10(smallest)))
    # What needs many more digits than the largest is not worth them.
    needed = for_smallest if for_smallest <= for_largest + 2 else for_largest + 1
    return min(max(for_largest, needed), 9)
