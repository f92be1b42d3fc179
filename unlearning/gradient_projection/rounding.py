"""Rounding: where a step is not in a cache, the nearest one that is stands for it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def nearest(step: int, cached: Sequence[int]) -> int | None:
    """Return the cached step nearest to a step; of two that are as near, the earlier.

    `cached` rises; None if it is empty.
    """
    place = bisect_left(cached, step)
    around = cached[max(0, place - 1) : place + 1]
    return min(around, key=lambda one: (abs(one - step), one), default=None)
