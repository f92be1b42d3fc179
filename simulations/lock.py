"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from split_unlearning.unlearning.state_folder import StateError

_PAUSE = 0.1


@contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep every other process away that asks, for as long as this one lives or wants.

    Parameters
    ----------
    folder : Path
        It is there.
    patience : float
        Seconds to wait for another process to end its work.

    Raises
    ------
    StateError
        If another process has it.
    OSError
        If it cannot be written to.
    """
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    told = os.pread(file, 32, 0).decode(errors="replace").strip()
                    holder = told or "of another machine"
                    raise StateError(f"{folder} is in use by process {holder}") from error
                time.sleep(_PAUSE)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(file)
