"""What a process reads or works out once, until it is told that things may have changed.

A process of a run lives as long as the run. A notebook lives on: between two of its runs files are
written anew, and classes are defined anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

T = TypeVar("T")

_known: list[_lru_cache_wrapper[Any]] = []


def once(maxsize: int) -> Callable[[Callable[..., T]], _lru_cache_wrapper[T]]:
    """Keep what a function returned for its last arguments, as `functools.lru_cache`."""

    def decorate(function: Callable[..., T]) -> _lru_cache_wrapper[T]:
        cached = lru_cache(maxsize=maxsize)(function)
        _known.append(cached)
        return cached

    return decorate


def forget_all() -> None:
    """Have everything read and worked out again."""
    for cached in _known:
        cached.cache_clear()
