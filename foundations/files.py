"""Files that are written whole or not at all, and folders in which one process works at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from split_unlearning.foundations.errors import StateError

_PAUSE_SECONDS = 0.1


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    beside = _beside(path)
    beside.write_bytes(data)
    beside.replace(path)


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write a JSON file whole or not at all, and return its path; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())
    return path


def write_for_owner(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; only its owner can read it."""
    beside = _beside(path)
    with open_for_owner(beside) as file:
        file.write(data)
    beside.replace(path)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file as `write_for_owner` does, and wait until it is on disk."""
    beside = _beside(path)
    with open_for_owner(beside) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def open_for_owner(path: Path) -> Any:
    """Open a new file that only its owner can read, for writing bytes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return open(os.open(path, flags, 0o600), "wb")


def make_for_owner(path: Path) -> None:
    """Make a folder and its missing parents, each for its owner only."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        # Else a power cut may lose the folder's name, and with it everything in the folder.
        sync(folder.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises
    ------
    StateError
        If the file cannot be read.
    """
    with explained(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the system into one line: which file could not be read or written, and why.

    Raises
    ------
    StateError
        With the file that the system names, or else `path`.
    """
    try:
        yield
    except OSError as error:
        file = error.filename or path
        raise StateError(
            f"{file}: {error.strerror or error}; what was kept is as it was before"
        ) from error


@contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes out of an existing folder until the block or this process ends.

    Raises
    ------
    StateError
        If another process holds the lock, after `patience` seconds.
    OSError
        If the folder cannot be written to.
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
                    holder = os.pread(file, 32, 0).decode(errors="replace").strip()
                    raise StateError(
                        f"{folder} is in use by process {holder or 'of another machine'}"
                    ) from error
                time.sleep(_PAUSE_SECONDS)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(file)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
