"""How figures write numbers."""

from __future__ import annotations

from collections.abc import Sequence

from split_unlearning.reporting.figures.scale import Scale, linear
from split_unlearning.reporting.statistic import Summary, style_for


def percent(share: float) -> str:
    """Return a share for a tick."""
    return f"{100 * share:.6g}"


def size(value: float) -> str:
    """Return bytes for a tick, with the prefixes of 1000."""
    for prefix, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= one * 0.9995:
            return f"{value / one:.4g} {prefix}"
    return f"{value:.4g} B"


def plain(value: float) -> str:
    """Return a number for a tick."""
    return f"{value:.4g}".replace("-", "\u2212")


def said(value: Summary, unit: str) -> str:
    """Return a mean and its deviation in words."""
    if unit == "bytes":
        spread = "" if value.deviation is None else f" ± {size(value.deviation)}"
        return size(value.mean) + spread
    style = style_for([value.mean], unit)
    shown = f"{style.mean(value.mean)}"
    if value.deviation is not None:
        shown += f" ± {style.deviation(value.deviation)}"
    return f"{shown} {style.unit}".strip()


def shares(label: str, values: Sequence[float]) -> Scale:
    """Return an axis of shares, in percent, that ends at 0 and 100 % at the latest."""
    found = linear(f"{label}, %", values, percent)
    if found.low < 0 or found.high > 1:
        low = 0.0 if found.low < 0 else found.low
        high = 1.0 if found.high > 1 else found.high
        ticks = tuple(tick for tick in found.ticks if low <= tick[0] <= high)
        return Scale(found.label, low, high, ticks)
    return found


def all_shares(label: str) -> Scale:
    """Return an axis from 0 to 100 %."""
    return linear(f"{label}, %", (0.0, 1.0), percent, 0.0, 1.0)
