"""The journal: what was requested, started and done, line by line, never rewritten."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from split_unlearning.foundations.errors import StateError
from split_unlearning.foundations.files import explained
from split_unlearning.foundations.text import parsed
from split_unlearning.unlearning.seal import Seal


class Journal:
    """Events in order, as JSON lines; each is durable once it is appended.

    Every line carries a seal of itself and of all lines before it, so that an edit is detected; see
    `Seal`. A last line that was cut off while it was written counts as never written. Without a
    path events stay in memory.

    Raises
    ------
    StateError
        If the file cannot be read, or is not as it was written.
    """

    def __init__(self, path: Path | None = None, seal: Seal | None = None) -> None:
        self._path, self._seal = path, seal or Seal()
        self.events: list[dict[str, Any]] = []
        self.head = ""
        """Seal of all lines; empty if there are none."""
        self._bytes = 0
        if path is not None and path.exists():
            with explained(path):
                content = path.read_bytes()
            # Text behind the last end of a line was cut off while it was written.
            for number, line in enumerate(content.split(b"\n")[:-1], start=1):
                self._take(line + b"\n", f"line {number} of {path}")
                self._bytes += len(line) + 1

    def _take(self, line: bytes, place: str) -> None:
        try:
            event = parsed(json.loads, line)
            written = self._seal.take(event, place)
        except StateError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(place) from error
        # Another spelling of the same event is an edit too.
        if written != self._sealed(event) or line != self._line(event, written):
            raise _damaged(place)
        self.events.append(event)
        self.head = written

    def _sealed(self, event: dict[str, Any]) -> str:
        return self._seal.of(self.head + json.dumps(event, sort_keys=True))

    def _line(self, event: dict[str, Any], sealed: str) -> bytes:
        return json.dumps({**event, self._seal.field: sealed}).encode() + b"\n"

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Append an event with the time and fields that JSON can hold; durable on return.

        Raises
        ------
        StateError
            If the line cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        # The event as it will be read again: JSON has text keys only.
        noted: dict[str, Any] = json.loads(json.dumps({"event": event, "time": now, **fields}))
        sealed = self._sealed(noted)
        line = self._line(noted, sealed)
        if self._path is not None:
            self._write(self._path, line)
        self.events.append(noted)
        self.head = sealed
        self._bytes += len(line)
        return noted

    def _write(self, path: Path, line: bytes) -> None:
        with explained(path):
            # A journal that disappears after its first line is not created again.
            create = 0 if self._bytes else os.O_CREAT
            file = os.open(path, os.O_WRONLY | create, 0o600)
            try:
                # Remove the rest of a torn last line.
                os.ftruncate(file, self._bytes)
                os.lseek(file, self._bytes, os.SEEK_SET)
                try:
                    written = os.write(file, line)
                    os.fsync(file)
                except OSError:
                    os.ftruncate(file, self._bytes)
                    raise
                if written < len(line):
                    os.ftruncate(file, self._bytes)
                    raise StateError(f"{path}: no space left for a line; it is as it was before")
            finally:
                os.close(file)


def _damaged(place: str) -> StateError:
    return StateError(f"{place} was edited, or cut short, since it was written")
