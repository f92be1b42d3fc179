"""How a file of a state-dir shows that it is as it was written: by a checksum, or under a key."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from split_unlearning.foundations.errors import StateError
from split_unlearning.foundations.files import explained, make_for_owner, write_durably


class Seal:
    """SHA-256 of a text; with the file of a key, HMAC-SHA-256 of it under that key.

    A checksum shows damage. A person who can write the file can write its checksum, too.
    A key that lies where that person cannot read it (``key-dir``) shows every change.

    The file of the key has 64 hexadecimal digits. It need not exist before `make`.
    """

    def __init__(self, key: Path | None = None) -> None:
        self._path = key

    @property
    def field(self) -> str:
        """The name that a file gives this form of seal."""
        return "hmac-sha256" if self._path else "sha256"

    def make(self) -> None:
        """Make the key, for its owner only, if it is to have one and has none."""
        if self._path is None or self._path.exists():
            return
        with explained(self._path):
            make_for_owner(self._path.parent)
            beside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
            write_durably(beside, secrets.token_hex(32).encode())
            # Another process may make the same key at the same time: the first to link it wins.
            with suppress(FileExistsError):
                os.link(beside, self._path)
            beside.unlink()

    def of(self, text: str) -> str:
        """Return the seal of a text, in hexadecimal digits.

        Raises
        ------
        StateError
            If the key cannot be read.
        """
        if self._path is None:
            return hashlib.sha256(text.encode()).hexdigest()
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def take(self, content: dict[str, Any], place: str) -> str:
        """Take the seal out of content that JSON holds, and return it.

        Raises
        ------
        StateError
            If it has the other form of seal; `place` says of what.
        KeyError
            If it has none.
        """
        if self._path is None and Seal(Path()).field in content:
            raise StateError(f"{place} is sealed with a key; allowed: key-dir, the folder of keys")
        if self._path is not None and Seal().field in content:
            raise StateError(f"{place} is not sealed with {self._path}")
        return str(content.pop(self.field))

    @cached_property
    def _key(self) -> bytes:
        assert self._path is not None
        with explained(self._path):
            text = self._path.read_text(encoding="ascii", errors="replace").strip()
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise StateError(f"{self._path} is no key; allowed: 64 hexadecimal digits")
        return key
