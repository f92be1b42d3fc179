"""The seconds that a server segment spends on training."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from split_unlearning.strategies.server.part import Parts, ServerPart


@dataclass
class Lap:
    """The seconds of one piece of training, known once it has ended."""

    seconds: float = 0.0


class Clock(ServerPart):
    """Adds up the seconds of training; those of copies side by side too."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._device = parts.device
        self._seconds = 0.0
        # Several clients may train copies at once.
        self._adding = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Lap]:
        """Count a block, with all that a GPU still has to do at its end."""
        lap, started = Lap(), time.perf_counter()
        yield lap
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        lap.seconds = time.perf_counter() - started
        with self._adding:
            self._seconds += lap.seconds

    def take(self) -> float:
        """Return the seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
