"""What a command on a state-dir is refused for; the state stays as it was."""

import errno
import os
import shutil
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest

from split_unlearning.foundations.errors import StateError, UserError
from split_unlearning.foundations.files import open_for_owner
from split_unlearning.simulations.data.loading import load as load_data
from split_unlearning.simulations.state.state_dir import StateDir, open_state
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.unlearning.state_folder import FORMAT
from tests.state.bench import (
    ask,
    certificate,
    digests_noted,
    learn,
    one_line,
    pieces,
    tree,
    unlearn,
    without_lock,
)


def commands(state, sliced):
    """Everything that can be done with a state-dir, by name."""
    return {
        "ask": lambda: ask(state, ("class:2", 1)),
        "run": lambda: learn(state, sliced),
        "verify": lambda: certificate(state, sliced),
    }


def test_a_second_process_is_kept_away(state, sliced):
    before = tree(state)
    with open_state(str(state)).locked():
        for name, command in commands(state, sliced).items():
            with pytest.raises(StateError, match=f"in use by process {os.getpid()}") as error:
                command()
            one_line(error)
            assert without_lock(tree(state)) == without_lock(before), name
    unlearn(state, sliced, ("class:2", 1))


def test_a_folder_that_cannot_be_written_to_stays_as_it_is(state, sliced):
    before = tree(state)
    create = os.open

    def read_only(path, flags, *arguments, **named):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return create(path, flags, *arguments, **named)

    with patch.object(os, "open", read_only):
        for name, command in commands(state, sliced).items():
            with pytest.raises(StateError, match="Read-only file system; what was kept") as error:
                command()
            assert str(state) in one_line(error)
            assert tree(state) == before, name


@contextmanager
def full_after(writes, folder):
    """A disk with room for so many more writes below a folder; tells what was refused."""
    write, refused = os.write, []
    seen = count()

    def has_room(path):
        if str(path).startswith(str(folder)) and next(seen) >= writes:
            refused.append(str(path))
        return not refused

    class Full:
        def __init__(self, file, path):
            self._file, self._path = file, path

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            if not has_room(self._path):
                self._file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._file.write(data)

    def write_to_full(file, data):
        has = has_room(os.readlink(f"/proc/self/fd/{file}"))
        return write(file, data if has else data[: len(data) // 2])

    with (
        patch(
            "split_unlearning.foundations.files.open_for_owner",
            lambda path: Full(open_for_owner(path), path),
        ),
        patch.object(os, "write", write_to_full),
    ):
        yield refused


def test_a_full_disk_takes_nothing_away(learned, tmp_path, sliced):
    whole = shutil.copytree(learned, tmp_path / "whole")
    unlearn(whole, sliced, ("class:2", 1))
    before, after = pieces(learned), pieces(whole)
    journal = (learned / "journal.jsonl").read_bytes()
    for writes in count():
        path = shutil.copytree(learned, tmp_path / str(writes))
        with full_after(writes, path) as refused:
            try:
                unlearn(path, sliced, ("class:2", 1))
                break
            except (StateError, ClientFailureError) as error:
                text = str(error)
        # It says which file, in one line, and that nothing was lost.
        assert "o space left" in text, text
        assert "as it was before" in text, text
        assert "\n" not in text
        assert str(Path(refused[0]).parent) in text
        assert (path / "journal.jsonl").read_bytes().startswith(journal)
        files = tree(path)
        if open_state(str(path)).journal.events[-1]["event"] in ("measured", "received", "started"):
            # Not prepared yet: every byte that was kept is kept.
            kept = {name: files.get(name) for name in tree(learned)}
            assert without_journal(kept) == without_journal(tree(learned))
        for folder, kept in pieces(path).items():
            assert kept in (before[folder], after[folder])
        # There is room again.
        unlearn(path, sliced, ("class:2", 1))
        assert pieces(path) == after
        shutil.rmtree(path)
    assert writes > 10


def without_journal(files):
    return {name: held for name, held in without_lock(files).items() if name != "journal.jsonl"}


def cut(data):
    return data[: len(data) // 2]


def edit(data):
    """Change one bit, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("harm", [cut, edit])
def test_a_file_that_is_not_as_it_was_written_is_named(harm, state, tmp_path, sliced):
    unlearn(state, sliced, ("class:3", 1))
    whole = shutil.copytree(state, tmp_path / "whole")
    unlearn(whole, sliced, ("class:2", 1))
    harmless = set()
    for name in tree(state):
        if name in ("lock", "certificate-key.pem"):
            continue
        path = shutil.copytree(state, tmp_path / "harmed")
        (path / name).write_bytes(harm((path / name).read_bytes()))
        before = tree(path)
        try:
            unlearn(path, sliced, ("class:2", 1))
        except (StateError, ClientFailureError) as error:
            text = str(error)
            assert "\n" not in text
            assert name in text or "do not belong together" in text, text
            changed = dict(before.items() - tree(path).items()).keys()
            assert changed <= {"lock", "journal.jsonl"}, name
        else:
            harmless.add(name.partition(".")[0])
            # Nobody read it, and what was asked for has replaced it, or did not touch it.
            assert digests_noted(path) == digests_noted(whole), name
        shutil.rmtree(path)
    assert harmless <= {
        *(f"clients/{client}/{file}" for client in (0, 2) for file in _KEPT),
        *(f"clients/1/{file}" for file in ("segment", "step-1")),
        "server/step-0",
        # Of figures alone; where it does not parse it is named all the same.
        "result",
    }


_KEPT = ("current", "segment", "step-1")


def test_another_format_is_called_by_its_name(state, sliced):
    other = FORMAT + 1
    for name, said in (
        ("run.toml", b"format = %d"),
        ("server/current.json", b'"format": %d'),
        ("clients/1/current.json", b'"format": %d'),
    ):
        old, new = said % FORMAT, said % other
        data = (state / name).read_bytes()
        assert old in data
        (state / name).write_bytes(data.replace(old, new))
        before = without_journal(tree(state))
        with pytest.raises((StateError, ClientFailureError)) as error:
            unlearn(state, sliced, ("class:2", 1))
        assert (
            f"{state / name} is in format {other}; this version reads format {FORMAT}"
            in one_line(error)
        )
        assert without_journal(tree(state)) == before
        (state / name).write_bytes(data)


def test_other_settings_are_refused(state, sliced):
    before = tree(state)
    for change in ({"seed": 1}, {"slices": 1}, {"learning_rate": 0.2}, {"forget": "class:2"}):
        with pytest.raises(
            UserError, match=r"with which .* was trained; or another folder"
        ) as error:
            learn(state, {**sliced, **change})
        one_line(error)
        assert without_lock(tree(state)) == without_lock(before)


def test_a_folder_of_something_else_is_refused(sliced, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"holds 'thesis.txt'"):
        learn(tmp_path, sliced)
    assert tree(tmp_path) == before
    assert StateDir(Path(tmp_path / "nowhere")).config is None
    assert not (tmp_path / "nowhere").exists()
    assert load_data(sliced["dataset"]).num_classes == 4
