"""Lines that a running app prints and the command line picks out of Flower's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PROGRESS = "[split-unlearning] "
FAILURE = "[split-unlearning] error: "

_listeners: list[Callable[[str], None]] = []


@contextmanager
def heard_by(listener: Callable[[str], None]) -> Iterator[None]:
    """Give the listener every line, and print none, while a run goes on in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def progress(text: str) -> None:
    """Say how far the run is, in one line."""
    _print_line(PROGRESS + text)


class Ticker:
    """Reports progress at most once in so many seconds; what comes sooner is dropped."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._last = float("-inf")

    def __call__(self, text: str) -> None:
        """Say how far the run is, unless that was said just now."""
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last = now
            progress(text)


def failure(text: str) -> None:
    """Say in one line why the run ends."""
    _print_line(FAILURE + " ".join(text.split()))


def show(text: str) -> None:
    """Print a table as it is, below the log."""
    _print_line("\n" + text)


def _print_line(text: str) -> None:
    if _listeners:
        for line in text.splitlines():
            _listeners[-1](line)
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
