"""A folder that changes whole or not at all, and says so where it was damaged."""

import errno
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from split_unlearning.foundations.errors import StateError
from split_unlearning.unlearning.state_folder import FORMAT, StateFolder, TemporaryFolder
from tests.refusals import files_no_larger_than, refusal

OLD = {"segment": b"old segment" * 50, "cache": b"old cache" * 50}
NEW = {"segment": b"new segment" * 50, "step-1": b"new step" * 50}


def change(folder, attempt, wanted):
    """Stage and flush what makes a folder hold what is wanted."""
    folder.begin(attempt)
    for name in set(folder) - set(wanted):
        del folder[name]
    for name, data in wanted.items():
        folder[name] = data
    folder.flush()


@pytest.fixture
def path(tmp_path):
    """Return a folder that holds OLD, and lies in folders of its own."""
    folder = StateFolder(tmp_path / "state" / "here", "server")
    change(folder, "one", OLD)
    folder.commit("one")
    return tmp_path / "state" / "here"


def on_disk(path):
    """Return everything in a folder: names, modes, bytes."""
    return {one.name: (one.stat().st_mode, one.read_bytes()) for one in path.iterdir()}


def read(path):
    return dict(StateFolder(path, "server"))


def test_opening_a_folder_that_is_not_there_creates_nothing(tmp_path):
    folder = StateFolder(tmp_path / "none" / "yet", "server")
    assert (dict(folder), len(folder), folder.attempt) == ({}, 0, "")
    assert "segment" not in folder
    with pytest.raises(KeyError):
        folder["segment"]
    assert list(tmp_path.iterdir()) == []


def test_what_was_committed_is_read_again(path):
    folder = StateFolder(path, "server")
    assert dict(folder) == OLD
    assert folder.attempt == "one"
    assert set(folder) == {"segment", "cache"}
    assert folder.path("cache").read_bytes() == OLD["cache"]


def test_what_was_committed_is_changed_by_an_attempt_only(path):
    before = on_disk(path)
    folder = StateFolder(path, "server")
    with pytest.raises(TypeError, match="begin"):
        folder["segment"] = b"new"
    with pytest.raises(TypeError, match="begin"):
        del folder["segment"]
    folder.flush()
    assert on_disk(path) == before


def test_nothing_changes_for_others_before_the_commit(path):
    folder = StateFolder(path, "server")
    change(folder, "two", NEW)
    assert dict(folder) == NEW
    assert folder.attempt == "one"
    assert read(path) == OLD
    folder.commit("two")
    assert read(path) == dict(folder) == NEW
    assert StateFolder(path, "server").attempt == folder.attempt == "two"


def test_an_attempt_that_was_not_flushed_leaves_no_trace_in_the_next(path):
    folder = StateFolder(path, "server")
    folder.begin("two")
    folder["segment"] = b"never finished"
    folder["extra"] = b"never finished"
    del folder["cache"]
    again = StateFolder(path, "server")
    assert dict(again) == OLD
    again.begin("three")
    assert dict(again) == OLD
    assert b"never finished" not in b"".join(data for _, data in on_disk(path).values())


def test_another_attempt_drops_what_an_earlier_one_staged(path):
    change(StateFolder(path, "server"), "two", NEW)
    folder = StateFolder(path, "server")
    folder.begin("three")
    assert dict(folder) == OLD
    folder["cache"] = b"third"
    folder.flush()
    refusal(StateFolder(path, "server").commit, "two")
    folder.commit("three")
    assert read(path) == OLD | {"cache": b"third"}
    assert not [one for one in path.iterdir() if ".two." in one.name]


def test_a_folder_of_the_file_system_is_in_nobodys_way(path):
    (path / ".snapshot").mkdir()
    (path / ".snapshot" / "hourly").write_text("not ours")
    change(StateFolder(path, "server"), "two", NEW)
    StateFolder(path, "server").commit("two")
    assert read(path) == NEW
    assert (path / ".snapshot" / "hourly").exists()


def test_the_same_attempt_goes_on_in_a_new_object(path):
    for name, data in NEW.items():
        folder = StateFolder(path, "server")
        folder.begin("two")
        folder[name] = data
        folder.flush()
    folder = StateFolder(path, "server")
    folder.begin("two")
    assert dict(folder) == OLD | NEW
    del folder["cache"]
    folder.flush()
    assert read(path) == OLD
    # Who commits has not to have staged it.
    StateFolder(path, "server").commit("two")
    assert read(path) == NEW


def test_an_attempt_that_changes_nothing_can_be_committed(path):
    folder = StateFolder(path, "server")
    folder.begin("two")
    folder.flush()
    folder.commit("two")
    assert read(path) == OLD
    assert StateFolder(path, "server").attempt == "two"


def test_committing_again_does_nothing(path):
    folder = StateFolder(path, "server")
    change(folder, "two", NEW)
    folder.commit("two")
    before = on_disk(path)
    for again in (folder, StateFolder(path, "server")):
        again.commit("two")
        assert dict(again) == NEW
    assert on_disk(path) == before


@pytest.mark.parametrize("staged", ["nothing", "another attempt", "unflushed"])
def test_an_attempt_that_staged_nothing_cannot_be_committed(path, staged):
    folder = StateFolder(path, "server")
    if staged == "another attempt":
        change(StateFolder(path, "server"), "three", NEW)
    elif staged == "unflushed":
        folder.begin("two")
        folder["segment"] = b"not on disk yet"
    message = refusal(StateFolder(path, "server").commit, "two")
    assert str(path) in message
    assert read(path) == OLD


def test_a_folder_without_anything_commits_nothing(tmp_path):
    assert str(tmp_path / "none") in refusal(StateFolder(tmp_path / "none", "server").commit, "one")
    assert list(tmp_path.iterdir()) == []


def test_after_a_commit_no_replaced_file_is_left(path):
    folder = StateFolder(path, "server")
    change(folder, "two", NEW)
    folder.commit("two")
    everything = b"".join(data for _, data in on_disk(path).values())
    assert b"old" not in everything
    assert len(on_disk(path)) == len(NEW) + 1


def test_what_an_attempt_overwrites_or_deletes_again_is_gone_at_once(path):
    folder = StateFolder(path, "server")
    folder.begin("two")
    for name in ("segment", "extra", "gone"):
        folder[name] = b"draft" * 1000
    folder.flush()
    folder["segment"] = b"short"
    folder["extra"] = b""
    del folder["gone"]
    assert b"draft" not in b"".join(data for _, data in on_disk(path).values())
    assert dict(folder) == {**OLD, "segment": b"short", "extra": b""}
    folder.flush()
    folder.commit("two")
    assert read(path) == {**OLD, "segment": b"short", "extra": b""}
    assert len(on_disk(path)) == 4


def test_everything_is_for_its_owner_only(tmp_path):
    before = os.umask(0)
    try:
        folder = StateFolder(tmp_path / "state" / "here", "server")
        change(folder, "one", OLD)
        modes = {one: stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "state").rglob("*")}
        modes[tmp_path / "state"] = stat.S_IMODE((tmp_path / "state").stat().st_mode)
        assert len(modes) == 5
        folder.commit("one")
        modes |= {one: stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "state").rglob("*")}
    finally:
        os.umask(before)
    assert {one.name: mode for one, mode in modes.items() if mode not in (0o700, 0o600)} == {}
    assert modes[tmp_path / "state" / "here"] == 0o700
    assert modes[tmp_path / "state" / "here" / "current.json"] == 0o600


@pytest.mark.parametrize("name", ["", ".", "..", "../segment", "a/b", "/a", "a.b", "a\0b", "a b"])
def test_a_name_that_is_no_name_of_a_file_is_refused(path, name):
    before = on_disk(path)
    folder = StateFolder(path, "server")
    folder.begin("two")
    with pytest.raises(ValueError, match="cannot name"):
        folder[name] = b"somewhere else"
    assert name not in folder
    assert read(path) == OLD
    assert on_disk(path) == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["here"]


@pytest.mark.parametrize("attempt", ["", "..", "/../../elsewhere", "a/b", "a.b", "a-b", "a\n"])
def test_an_attempt_that_is_not_letters_and_digits_is_refused(path, attempt):
    before = on_disk(path)
    folder = StateFolder(path, "server")
    with pytest.raises(ValueError, match="cannot name"):
        folder.begin(attempt)
    assert on_disk(path) == before


# What is damaged is found.


def committed(temporary):
    """Return a folder that holds something, below a temporary one."""
    path = Path(temporary) / "state"
    folder = StateFolder(path, "server")
    change(folder, "one", OLD)
    folder.commit("one")
    return path


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_bit_flipped_anywhere_is_found(data):
    with tempfile.TemporaryDirectory() as temporary:
        path = committed(temporary)
        file = data.draw(st.sampled_from(sorted(path.iterdir())))
        content = bytearray(file.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content)
        before = on_disk(path)
        assert str(file) in refusal(read, path)
        assert on_disk(path) == before


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_file_cut_short_is_found(data):
    with tempfile.TemporaryDirectory() as temporary:
        path = committed(temporary)
        file = data.draw(st.sampled_from(sorted(path.iterdir())))
        # A manifest's last byte is the end of its line.
        left = data.draw(st.integers(0, file.stat().st_size - 2))
        os.truncate(file, left)
        before = on_disk(path)
        assert str(file) in refusal(read, path)
        assert on_disk(path) == before


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "{}", '{"sha256": 1}'])
def test_a_manifest_of_something_else_is_refused(path, content):
    (path / "current.json").write_text(content)
    assert str(path / "current.json") in refusal(StateFolder, path, "server")


def test_a_missing_file_is_named_and_the_others_can_be_read(path):
    missing = StateFolder(path, "server").path("segment")
    missing.unlink()
    before = on_disk(path)
    folder = StateFolder(path, "server")
    assert str(missing) in refusal(folder.__getitem__, "segment")
    assert str(missing) in refusal(folder.path, "segment")
    assert folder["cache"] == OLD["cache"]
    assert on_disk(path) == before


def test_what_another_version_wrote_is_refused_with_both_formats(path):
    manifest = path / "current.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": FORMAT + 6}))
    before = on_disk(path)
    message = refusal(StateFolder, path, "server")
    assert str(manifest) in message
    assert f"format {FORMAT + 6}" in message
    assert f"format {FORMAT}" in message
    assert on_disk(path) == before


def test_a_staged_manifest_that_was_cut_off_is_dropped(path):
    change(StateFolder(path, "server"), "two", NEW)
    os.truncate(path / "staged.json", 20)
    folder = StateFolder(path, "server")
    assert dict(folder) == OLD
    refusal(folder.commit, "two")
    folder.begin("two")
    assert dict(folder) == OLD
    change(folder, "two", NEW)
    folder.commit("two")
    assert read(path) == NEW


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refusal(StateFolder, tmp_path / "file", "server")
    assert (tmp_path / "file").read_text() == "mine"


# What cannot be written leaves things as they were.


def test_a_disk_that_is_full_changes_nothing(path):
    folder = StateFolder(path, "server")
    folder.begin("two")
    with files_no_larger_than(100):
        message = refusal(folder.__setitem__, "segment", b"new" * 1000)
    assert str(path) in message
    assert folder["segment"] == OLD["segment"]
    assert read(path) == OLD
    # When there is room again it goes on.
    change(folder, "two", NEW)
    folder.commit("two")
    assert read(path) == NEW


class Interruption:
    """The system's calls that change a disk; the one of that number, and all after it, fail."""

    NAMES = ("open", "fsync", "replace", "unlink", "mkdir")

    def __init__(self, number, error):
        self.left, self.error = number, error
        self.replaced = []

    def __enter__(self):
        self.patches = [patch.object(os, name, self.guarded(name)) for name in self.NAMES]
        for one in self.patches:
            one.start()
        return self

    def __exit__(self, *_):
        for one in self.patches:
            one.stop()

    def guarded(self, name):
        call = getattr(os, name)

        def guarded(*arguments, **named):
            if self.left == 0:
                # The system names no file where it was given none.
                named_file = () if name == "fsync" else (str(arguments[0]),)
                raise OSError(self.error, os.strerror(self.error), *named_file)
            self.left -= 1
            if name == "replace":
                self.replaced.append(Path(arguments[1]).name)
            return call(*arguments, **named)

        return guarded


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_wherever_the_system_refuses_the_state_is_the_old_or_the_new(tmp_path, error):
    number = interrupted = 0
    while True:
        path = tmp_path / str(number)
        folder = StateFolder(path, "server")
        change(folder, "one", OLD)
        folder.commit("one")
        with Interruption(number, error) as interruption:
            message = ""
            try:
                change(folder, "two", NEW)
                folder.commit("two")
            except StateError as refused:
                message = str(refused)
        if message:
            interrupted += 1
            assert "\n" not in message
            assert str(path) in message
            assert os.strerror(error) in message
        committed = "current.json" in interruption.replaced
        assert read(path) == (NEW if committed else OLD)
        if interruption.left:
            break
        # And the next one is done.
        folder = StateFolder(path, "server")
        change(folder, "three", NEW)
        folder.commit("three")
        assert read(path) == NEW
        assert len(on_disk(path)) == 3
        number += 1
    assert interrupted > 10


def test_everything_is_on_disk_before_it_is_the_state(path):
    happened = []

    def synced(opened):
        happened.append(Path(os.readlink(f"/proc/self/fd/{opened}")).name)
        fsync(opened)

    def replaced(source, target):
        happened.append(f"{Path(target).name} there")
        replace(source, target)

    fsync, replace = os.fsync, os.replace
    folder = StateFolder(path, "server")
    with patch.object(os, "fsync", synced), patch.object(os, "replace", replaced):
        change(folder, "two", NEW)
        flushed = len(happened)
        folder.commit("two")
    files = {folder.path(name).name for name in NEW}
    staged = happened.index("staged.json there")
    assert files <= set(happened[:staged])
    assert happened[staged - 1 : flushed] == ["staged.json.part", "staged.json there", path.name]
    # What is not needed any more goes after that, and is gone for good.
    assert happened[flushed:] == ["current.json there", path.name, path.name]


def test_what_was_committed_but_not_swept_is_finished_by_committing_again(path):
    folder = StateFolder(path, "server")
    change(folder, "two", NEW)
    with patch.object(os, "unlink", side_effect=OSError(errno.EIO, "no")):
        refusal(folder.commit, "two")
    again = StateFolder(path, "server")
    assert dict(again) == NEW
    again.commit("two")
    assert len(on_disk(path)) == len(NEW) + 1


def test_a_temporary_folder_ends_with_close():
    folder = TemporaryFolder()
    folder["segment"] = b"for now"
    path = folder.path("segment").parent
    assert folder["segment"] == b"for now"
    folder.close()
    assert not path.exists()


NAMES = st.sampled_from(["segment", "cache", "step-1", "a_b"])


class FolderAndDict(RuleBasedStateMachine):
    """A state folder beside a dict, with a process that may end at any point."""

    def __init__(self):
        super().__init__()
        self.temporary = tempfile.mkdtemp()
        self.path = Path(self.temporary) / "state"
        self.folder = StateFolder(self.path, "server")
        self.committed = {}
        # What this attempt has made of it, and what of that is on disk; None without an attempt.
        self.staged = self.flushed = None
        self.attempts = 0

    def teardown(self):
        shutil.rmtree(self.temporary)

    @property
    def attempt(self):
        return f"attempt{self.attempts}"

    @rule()
    def begin(self):
        self.attempts += 1
        self.folder.begin(self.attempt)
        self.staged, self.flushed = dict(self.committed), None

    @precondition(lambda self: self.staged is not None)
    @rule(name=NAMES, data=st.binary(max_size=40))
    def put(self, name, data):
        self.folder[name] = data
        self.staged[name] = data

    @precondition(lambda self: self.staged)
    @rule(data=st.data())
    def delete(self, data):
        name = data.draw(st.sampled_from(sorted(self.staged)))
        del self.folder[name]
        del self.staged[name]

    @precondition(lambda self: self.staged is not None)
    @rule()
    def flush(self):
        self.folder.flush()
        self.flushed = dict(self.staged)

    @rule()
    def the_process_ends(self):
        self.folder = StateFolder(self.path, "server")
        if self.staged != self.flushed:
            self.flushed = None
        self.staged = None

    @precondition(lambda self: self.staged is None and self.flushed is not None)
    @rule()
    def go_on(self):
        self.folder.begin(self.attempt)
        self.staged = dict(self.flushed)

    @precondition(lambda self: self.flushed is not None and self.staged in (None, self.flushed))
    @rule()
    def commit(self):
        self.folder.commit(self.attempt)
        self.committed, self.staged, self.flushed = self.flushed, None, None
        kept = {one.name for one in self.path.iterdir()}
        assert len(kept) == len(self.committed) + 1

    @precondition(lambda self: self.staged is None and self.flushed is None and self.attempts)
    @rule()
    def commit_what_is_not_there(self):
        if self.folder.attempt == self.attempt:
            self.folder.commit(self.attempt)
        else:
            refusal(self.folder.commit, "another")

    @invariant()
    def both_hold_the_same(self):
        assert dict(self.folder) == (self.committed if self.staged is None else self.staged)
        assert read(self.path) == self.committed


TestFolderAndDict = FolderAndDict.TestCase
TestFolderAndDict.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)


@pytest.mark.parametrize("what", ["whole", "edited", "gone"])
def test_what_is_read_ahead_is_as_sound_as_what_is_not(what, tmp_path):
    kept = StateFolder(tmp_path / "kept", "server")
    kept.begin("attempt")
    kept["one"] = b"kept"
    kept.flush()
    kept.commit("attempt")
    (file,) = (one for one in (tmp_path / "kept").iterdir() if one.read_bytes() == b"kept")
    if what == "edited":
        file.write_bytes(b"left")
    elif what == "gone":
        file.unlink()
    again = StateFolder(tmp_path / "kept", "server")
    again.expect("one")
    again.expect("one")
    if what == "whole":
        assert again["one"] == b"kept"
    else:
        with pytest.raises(StateError):
            again["one"]
