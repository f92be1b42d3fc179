"""What the journal says is on disk before it says so: a power cut takes what was not synced."""

import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from split_unlearning.foundations.files import open_for_owner
from split_unlearning.unlearning.journal import Journal
from tests.state.bench import learn, unlearn


class Disk:
    """Knows what below a folder was written, made, renamed or deleted, and not synced since."""

    def __init__(self, folder):
        self._folder = folder
        self._unsynced = set()
        self.lines = []
        self.at_risk = {}

    def _changed(self, path):
        path = Path(path)
        # A lock means nothing after a power cut, and a part of a file is never read.
        if path.name != "lock" and path.suffix != ".part":
            # The name of what was changed lies in its folder.
            self._unsynced.add(path.parent)

    def _noting(self, change, which):
        def noted(*arguments, **named):
            done = change(*arguments, **named)
            self._changed(arguments[which])
            return done

        return noted

    def _open(self, open_for_owner):
        def opened(path):
            self._unsynced.add(Path(path))
            return open_for_owner(path)

        return opened

    def _replace(self, replace):
        def replaced(source, target, **named):
            replace(source, target, **named)
            if Path(source) in self._unsynced:
                self._unsynced.discard(Path(source))
                self._unsynced.add(Path(target))
            self._changed(target)

        return replaced

    def _sync(self, fsync):
        def synced(file):
            fsync(file)
            self._unsynced.discard(Path(os.readlink(f"/proc/self/fd/{file}")))

        return synced

    def _append(self, append):
        def appended(journal, event, **fields):
            below = {
                str(path.relative_to(self._folder.parent))
                for path in self._unsynced
                if path.is_relative_to(self._folder.parent) and path.exists()
            }
            self.lines.append(event)
            if below:
                self.at_risk[event] = below
            return append(journal, event, **fields)

        return appended

    @contextmanager
    def watched(self):
        patches = [
            patch.object(os, "fsync", self._sync(os.fsync)),
            patch.object(os, "replace", self._replace(os.replace)),
            patch.object(os, "mkdir", self._noting(os.mkdir, 0)),
            patch.object(os, "unlink", self._noting(os.unlink, 0)),
            patch("split_unlearning.foundations.files.open_for_owner", self._open(open_for_owner)),
            patch.object(Journal, "append", self._append(Journal.append)),
        ]
        with ExitStack() as stack:
            for one in patches:
                stack.enter_context(one)
            yield


def test_everything_is_on_disk_before_the_journal_says_so(sliced, tmp_path):
    disk = Disk(tmp_path / "new" / "state")
    with disk.watched():
        learn(tmp_path / "new" / "state", sliced)
        unlearn(tmp_path / "new" / "state", sliced, ("class:2", 1))
    done = ["received", "started", "prepared", "committed", "measured"]
    assert disk.lines == done * 2
    assert disk.at_risk == {}
