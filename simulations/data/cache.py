"""A cache of arrays in files: one process makes them, all processes of a machine map them.

A process that maps a file holds no copy of it; processes share the pages that any of them has
read. The files lie in a folder for their owner only, ``split-unlearning`` in
``$XDG_CACHE_HOME`` or ``~/.cache``, and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from split_unlearning.foundations.files import locked, sync, write_durably

_FORMAT = 1
_FACTS = "facts.json"
_UNUSED_SECONDS = 30 * 24 * 3600
# Two changes of a file within the grain of its clock look like one; the coarsest grain in use.
_GRAIN_SECONDS = 2.0

Arrays = Mapping[str, np.ndarray]
Facts = dict[str, Any]


def kept(
    name: str, make: Callable[[], tuple[Arrays, Facts]]
) -> tuple[dict[str, np.ndarray], Facts]:
    """Return the arrays and facts that `make` returns, from files if they were made before.

    The arrays hold no Python objects, and are read-only when they return, read from their file only
    where they are looked at; the facts are what JSON can hold. `name` stands for all that they
    follow from, see `fingerprint` and `named`.

    Two processes that ask at once make them once. What cannot be kept, for want of a folder, of
    space or of permission, is made each time, with a warning.
    """
    made: tuple[Arrays, Facts] | None = None
    there = None
    try:
        folder = _folder()
        there = _open(folder / name)
        if there is None:
            with locked(folder, patience=math.inf):
                # Another process may have made it while this one waited.
                there = _open(folder / name)
                if there is None:
                    made = make()
                    _write(folder / name, *made)
                    _delete_unused(folder)
                    there = _open(folder / name)
    except OSError as error:
        warnings.warn(f"nothing is kept in the cache: {error}", RuntimeWarning, stacklevel=2)
    if there is not None:
        return there
    arrays, facts = made or make()
    for array in arrays.values():
        array.flags.writeable = False
    return dict(arrays), facts


def named(kind: str, *parts: object) -> str:
    """Return a name for what follows from some values; arrays count with all that they hold."""
    sha = hashlib.sha256(repr(_FORMAT).encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).data)
        else:
            sha.update(repr(part).encode())
    return f"{kind}-{sha.hexdigest()[:32]}"


def fingerprint(kind: str, read_as: str, files: Sequence[Path], now: float) -> str:
    """Return a name for what files hold, as far as the file system knows it, and how it is read.

    A file counts with its path, size, number, and the times of its last changes. A file that
    changed just before `now`, in seconds since the epoch, counts with its contents too: another
    change could still look the same. Names are compared at one `now`: a file that grows old
    changes its name without a change.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    facts: list[object] = [read_as]
    for path in files:
        status = path.stat()
        facts.append((str(path), status.st_size, status.st_ino, status.st_dev))
        facts.append((status.st_mtime_ns, status.st_ctime_ns))
        if abs(now - status.st_ctime) < _GRAIN_SECONDS:
            with path.open("rb") as file:
                facts.append(hashlib.file_digest(file, "sha256").hexdigest())
    return named(kind, *facts)


def _folder() -> Path:
    """Return the folder of the cache, for its owner only."""
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")
    try:
        base = given if given.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise OSError("there is no home folder") from error
    folder = base / "split-unlearning"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to another user")
    return folder


def _open(folder: Path) -> tuple[dict[str, np.ndarray], Facts] | None:
    """Return what a folder holds, mapped; None if it is not there, or not whole."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        arrays = {
            # As a plain array: it has the same pages, and no ways of its own.
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in facts["arrays"]
        }
        # Says when it was last used.
        os.utime(folder)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return arrays, facts["facts"]


def _write(folder: Path, arrays: Arrays, facts: Facts) -> None:
    """Write a folder anew; the facts come last, and without them nothing in it counts."""
    # One that could not be opened may lie in the way.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        for name, array in arrays.items():
            path = folder / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            sync(path)
        known = json.dumps({"arrays": list(arrays), "facts": facts})
        write_durably(folder / _FACTS, known.encode())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _delete_unused(folder: Path) -> None:
    """Delete what no process has asked for in a month, and what a crash has left half made.

    A process that has it mapped keeps it.
    """
    for entry in folder.iterdir():
        with suppress(OSError):
            if entry.is_dir() and time.time() - entry.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(entry)
