"""A folder of files that change together: all of them or none, even if the process is killed.

Files are written beside those that they replace, under new names; a manifest says which are
current. A change is staged (its files and its manifest are on disk) and then committed by one
atomic rename of the manifest. Files that the new manifest does not name are deleted.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from split_unlearning.foundations.errors import StateError
from split_unlearning.foundations.files import (
    explained,
    make_for_owner,
    sha256_of,
    sync,
    write_durably,
    write_for_owner,
)
from split_unlearning.foundations.text import parsed
from split_unlearning.unlearning.seal import Seal

FORMAT = 2
"""Format of everything in a state-dir; another one is not read."""

_CURRENT, _STAGED = "current.json", "staged.json"


@dataclass(frozen=True)
class _File:
    """One file of a manifest: its name, hash and size."""

    file: str
    sha256: str
    bytes: int


@dataclass
class _Manifest:
    """The file of each name, and the attempt that wrote the manifest."""

    attempt: str
    files: dict[str, _File]

    def write(self, path: Path, owner: str, seal: Seal) -> None:
        files = {name: asdict(file) for name, file in sorted(self.files.items())}
        content = {"format": FORMAT, "owner": owner, "attempt": self.attempt, "files": files}
        text = json.dumps({**content, seal.field: seal.of(_text(content))}, indent=1) + "\n"
        write_durably(path, text.encode())

    @classmethod
    def read(cls, path: Path, owner: str, seal: Seal) -> _Manifest | None:
        """Read an owner's manifest; None if there is none.

        Raises
        ------
        StateError
            If it is of another format or another owner, or is not as it was written.
        """
        with explained(path):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            content = parsed(json.loads, text)
            check_format(content, path)
            written = seal.take(content, str(path))
            if written != seal.of(_text(content)):
                raise damaged(path)
            # A folder from before owners were named does not name any.
            if content.get("owner", owner) != owner:
                raise _of_another(path, content["owner"], owner)
            files = {name: _File(**file) for name, file in content["files"].items()}
            return cls(content["attempt"], files)
        except StateError:
            # A subclass of ValueError, which already says what is wrong.
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise damaged(path) from error


class StateFolder(MutableMapping[str, bytes]):
    """Safetensors bytes by name, in a folder for its owner only.

    Reading needs nothing else; changing needs `begin`. Opening a missing folder is opening an empty
    one, and creates nothing. `owner` says whose folder it is, ``"server"`` or ``"client 3"``: the
    folder of another is refused. `seal` shows changes by others; see `Seal`.

    Raises
    ------
    StateError
        If it cannot be read, is not as it was written, or is of another format or owner.
    """

    def __init__(self, path: Path, owner: str, seal: Seal | None = None) -> None:
        self._path, self._owner, self._seal = path, owner, seal or Seal()
        self._current = self._read(_CURRENT) or _Manifest("", {})
        self._staged: _Manifest | None = None
        self._verified: set[str] = set()
        self._ahead: dict[str, Thread] = {}
        self._unsynced: set[Path] = set()
        self._changed = False

    def _read(self, manifest: str) -> _Manifest | None:
        return _Manifest.read(self._path / manifest, self._owner, self._seal)

    @property
    def attempt(self) -> str:
        """The attempt that was committed last; empty if there was none."""
        return self._current.attempt

    def check_attempt(self, attempt: str) -> None:
        """Check that the last committed attempt is the expected one.

        Raises
        ------
        StateError
            If it is not: the folder may be older, and know of samples that were forgotten since.
        """
        if self.attempt != attempt:
            raise StateError(
                f"{self._path} is not what was kept there last: it is missing, or older, and may "
                "not know what was forgotten since"
            )

    # Reading.

    def check(self) -> None:
        """Compare the content of every file with the manifest.

        Raises
        ------
        StateError
            If a file is missing, or is not as it was written.
        """
        for name in self:
            self.path(name)

    def path(self, name: str) -> Path:
        """Return the file of a name, after comparing its content with the manifest.

        Raises
        ------
        KeyError
            If there is no such name.
        StateError
            If the file is missing, or is not as it was written.
        """
        file = self._files[name]
        path = self._path / file.file
        if ahead := self._ahead.pop(file.file, None):
            ahead.join()
        if file.file not in self._verified:
            if sha256_of(path) != file.sha256:
                raise damaged(path)
            self._verified.add(file.file)
        return path

    def expect(self, name: str) -> None:
        """Start to read and compare, in a thread, a file that is needed next."""
        file = self._files[name]
        if file.file not in self._verified and file.file not in self._ahead:
            self._ahead[file.file] = Thread(target=self._compare, args=(file,), daemon=True)
            self._ahead[file.file].start()

    def _compare(self, file: _File) -> None:
        # `path` raises the error to its caller.
        with suppress(StateError):
            if sha256_of(self._path / file.file) == file.sha256:
                self._verified.add(file.file)

    def bytes_of(self, name: str) -> int:
        """Return the size of a name's file in bytes, as the manifest has it.

        Raises
        ------
        KeyError
            If there is no such name.
        """
        return self._files[name].bytes

    def __getitem__(self, name: str) -> bytes:
        path = self.path(name)
        with explained(path):
            return path.read_bytes()

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._files))

    def __len__(self) -> int:
        return len(self._files)

    @property
    def _files(self) -> dict[str, _File]:
        return (self._staged or self._current).files

    # Changing.

    def begin(self, attempt: str) -> None:
        """Resume what an attempt staged, or begin it; what another attempt staged is dropped.

        Raises
        ------
        StateError
            If the folder cannot be written to.
        ValueError
            If the attempt's name has anything but letters and digits.
        """
        # The name comes from the server, and becomes part of a path.
        if not re.fullmatch(r"[0-9A-Za-z]+", attempt):
            raise ValueError(f"{attempt!r} cannot name an attempt; letters and digits can")
        with explained(self._path):
            make_for_owner(self._path)
        if not self.attempt:
            self._seal.make()
        staged = self._read_staged()
        if staged is None or staged.attempt != attempt:
            self._sweep()
            staged = _Manifest(attempt, dict(self._current.files))
            self._changed = True
        self._staged = staged

    def _read_staged(self) -> _Manifest | None:
        try:
            return self._read(_STAGED)
        except StateError:
            # Torn, or from an earlier version: it was not committed.
            return None

    def __setitem__(self, name: str, data: bytes) -> None:
        staged = self._staging()
        path = self._path / _file_name(name, staged.attempt)
        with explained(path):
            write_for_owner(path, data)
        staged.files[name] = _File(path.name, hashlib.sha256(data).hexdigest(), len(data))
        self._unsynced.add(path)
        # The file holds the bytes that were just hashed.
        self._verified.add(path.name)
        self._changed = True

    def __delitem__(self, name: str) -> None:
        staged = self._staging()
        file = staged.files.pop(name)
        if file.file == _file_name(name, staged.attempt):
            # Only this attempt has ever named the file.
            with explained(self._path):
                (self._path / file.file).unlink(missing_ok=True)
        self._changed = True

    def _staging(self) -> _Manifest:
        if self._staged is None:
            raise TypeError("what was committed is changed by an attempt only: call begin")
        return self._staged

    def flush(self) -> None:
        """Put what is staged on disk, durably."""
        if self._staged is None or not self._changed:
            return
        with explained(self._path):
            for path in self._unsynced:
                if path.exists():
                    sync(path)
            self._staged.write(self._path / _STAGED, self._owner, self._seal)
        self._unsynced.clear()
        self._changed = False

    def commit(self, attempt: str) -> None:
        """Make what an attempt staged the state, and delete what it replaced.

        A repeated call does nothing.

        Raises
        ------
        StateError
            If that attempt staged nothing here.
        """
        if self._current.attempt != attempt:
            staged = self._read(_STAGED)
            if staged is None or staged.attempt != attempt:
                raise StateError(f"{self._path} holds nothing of the change that is to be made")
            with explained(self._path):
                (self._path / _STAGED).replace(self._path / _CURRENT)
                sync(self._path)
            self._current = staged
        self._staged = None
        self._sweep()

    def _sweep(self) -> None:
        """Delete, durably, every file that the manifest does not name."""
        kept = {_CURRENT, *(file.file for file in self._current.files.values())}
        with explained(self._path):
            # A folder is not ours: some file systems show their snapshots in one.
            swept = [
                path for path in self._path.iterdir() if path.name not in kept and path.is_file()
            ]
            for path in swept:
                path.unlink()
            if swept:
                sync(self._path)


class TemporaryFolder(StateFolder):
    """A folder that exists as long as this object, and in which nothing is committed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="smashed-data-")
        super().__init__(Path(self._folder.name), "this run")
        self.begin("temporary")

    def close(self) -> None:
        """Delete the folder."""
        self._folder.cleanup()


def _file_name(name: str, attempt: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{name!r} cannot name what is kept; letters, digits, - and _ can")
    return f"{name}.{attempt}.safetensors"


def check_format(content: dict[str, Any], path: Path) -> None:
    """Refuse a file that another version of this project wrote.

    Raises
    ------
    StateError
        With both formats.
    """
    if content["format"] != FORMAT:
        raise StateError(
            f"{path} is in format {content['format']!r}; this version reads format {FORMAT}: use "
            "the version of split-unlearning that wrote it"
        )


def _of_another(path: Path, found: str, owner: str) -> StateError:
    return StateError(f"{path} belongs to {found}, and not to {owner}: folders were exchanged")


def damaged(path: Path) -> StateError:
    """Return the error for a file that is not as it was written."""
    return StateError(f"{path} was edited, or cut short, since it was written")


def checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of content that JSON can hold."""
    return Seal().of(_text(content))


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True)
