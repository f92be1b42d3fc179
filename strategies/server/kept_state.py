"""What a server segment keeps, for the time of a run or from one run to the next."""

from __future__ import annotations

from pathlib import Path

from split_unlearning.strategies.server.part import Parts, ServerPart
from split_unlearning.unlearning.seal import Seal
from split_unlearning.unlearning.state_folder import StateFolder, TemporaryFolder


class KeptState(ServerPart):
    """The folder that all parts keep their state in, and how an attempt to change it ends."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._temporary = TemporaryFolder()
        self._attempt = ""

    def open(self, folder: str = "", key: str = "") -> None:
        """Have all parts go on from what a folder keeps; by default from one that ends with them.

        `key` is the file of the key that seals the folder, empty for none.

        Raises
        ------
        StateError
            If what is there is not as it was written.
        """
        seal = Seal(Path(key) if key else None)
        opened = StateFolder(Path(folder), "server", seal) if folder else self._temporary
        for part in self.parts:
            part.take_up(opened)

    def begin(self, attempt: str) -> None:
        """Begin to change what is kept, under a name that no other attempt has."""
        self.folder.begin(attempt)
        self._attempt = attempt

    def seal(self) -> None:
        """Put on disk what was changed: from here on `commit` needs nothing but the disk."""
        for part in self.parts:
            part.keep()
        self.folder.flush()

    def commit(self, attempt: str) -> None:
        """Make what an attempt changed the state, and delete what it replaced."""
        self.folder.commit(attempt)
        if attempt != self._attempt:
            # Another process changed it, and did not come to its end.
            for part in self.parts:
                part.take_up(self.folder)

    def attempt(self) -> str:
        """Return the attempt that was committed last; empty if none was."""
        return self.folder.attempt

    def bytes_of_caches(self) -> int:
        """Return the size of all that is cached of training, activations and gradients."""
        return sum(part.cache_bytes for part in self.parts)

    def close(self) -> None:
        """Delete what no state-dir keeps."""
        self._temporary.close()
