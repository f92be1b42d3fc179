"""From a value to a place on an axis, and the ticks between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

# Beneath it, parts of a number are no numbers any more.
_SMALLEST = 1e-290


@dataclass(frozen=True)
class Scale:
    """An axis.

    Parameters
    ----------
    label : str
        What it says, with the unit.
    low, high : float
        Its ends; of a logarithmic one both are above 0.
    ticks : sequence of pairs of float and str
        Where, and what is written there.
    kind : str
        ``linear``, or ``log``: on that, what is 0 or less stands at its low end.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    kind: Literal["linear", "log"] = "linear"

    def place(self, value: float) -> float:
        """Return where a value is, 0 at the low end and 1 at the high one."""
        if self.kind == "log":
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(
    label: str,
    values: Sequence[float],
    written: Callable[[float], str],
    low: float | None = None,
    high: float | None = None,
) -> Scale:
    """Return a linear axis for these values, from one round number to another.

    Parameters
    ----------
    label : str
        Of the axis.
    values : sequence of float
        What has to be on it.
    written : callable
        How a tick is written.
    low, high : float or None
        Ends that are given; else they follow from the values.
    """
    least = min(values, default=0.0) if low is None else low
    most = max(values, default=1.0) if high is None else high
    if most - least <= max(1e-9 * max(abs(least), abs(most)), _SMALLEST):
        most = least + (abs(least) if abs(least) > _SMALLEST else 1.0)
    step = _step((most - least) / 4)
    start = math.floor(least / step + 1e-9) if low is None else math.ceil(least / step - 1e-9)
    end = math.ceil(most / step - 1e-9) if high is None else math.floor(most / step + 1e-9)
    places = [float(f"{number * step:.12g}") for number in range(start, end + 1)]
    bottom = places[0] if low is None else least
    top = places[-1] if high is None else most
    return Scale(label, bottom, top, tuple((place, written(place)) for place in places))


def logarithmic(
    label: str, values: Sequence[float], written: Callable[[float], str], zero: bool = False
) -> Scale:
    """Return a logarithmic axis from one power of ten to another.

    Parameters
    ----------
    label, values, written
        As for `linear`; values that are not above 0 do not count.
    zero : bool
        Whether there are such; the low end then stands for them, and is written as 0.
    """
    positive = [value for value in values if value > 0] or [1.0]
    start = math.floor(math.log10(min(positive)) + 1e-9)
    end = max(math.ceil(math.log10(max(positive)) - 1e-9), start + 1)
    powers = list(range(start, end + 1))
    every = math.ceil(len(powers) / 6)
    ticks = [(10.0**power, written(10.0**power)) for power in powers[::every]]
    low = 10.0**start
    if zero:
        low = 10.0 ** (start - 1)
        ticks = [(low, "0"), *ticks]
    return Scale(label, low, 10.0**end, tuple(ticks), "log")


def categories(label: str, names: Sequence[str]) -> Scale:
    """Return an axis with a place for each name, at 0, 1, 2, ..."""
    ticks = tuple((float(place), name) for place, name in enumerate(names))
    return Scale(label, -0.5, len(names) - 0.5, ticks)


def _step(rough: float) -> float:
    """Return the round number that is nearest above."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough * 0.999)
