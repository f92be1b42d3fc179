"""The journal: what was written is read again, and an edit of it is found."""

import errno
import os
import stat
import tempfile
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.unlearning.journal import Journal
from tests.refusals import files_no_larger_than, refusal

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(["task", "requests", "cost", "ü"]), VALUES, max_size=3)


def three_lines(folder):
    path = Path(folder) / "journal.jsonl"
    journal = Journal(path)
    journal.append("received", task=0, requests=[])
    journal.append("started", task=0, attempt="ab12", environment={"threads": 1})
    journal.append("prepared", task=0, digests={"clients": {"0": "ff"}}, cost=0.25)
    return path


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["received", "started"]), FIELDS), max_size=4))
def test_what_is_appended_is_read_again(events):
    with tempfile.TemporaryDirectory() as folder:
        path, heads = Path(folder) / "journal.jsonl", [""]
        kept, in_memory = Journal(path), Journal()
        for event, fields in events:
            noted = kept.append(event, **fields)
            assert noted.items() >= {"event": event, **fields}.items()
            assert datetime.fromisoformat(noted["time"]).utcoffset().total_seconds() == 0
            in_memory.append(event, **fields)
            again = Journal(path)
            assert again.events == kept.events
            assert again.head == kept.head
            heads.append(kept.head)
    assert len(set(heads)) == len(events) + 1
    untimed = [[{**one, "time": ""} for one in each.events] for each in (kept, in_memory)]
    assert untimed[0] == untimed[1]


def test_a_journal_that_is_not_there_is_empty_and_is_not_created(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    assert (journal.events, journal.head) == ([], "")
    assert list(tmp_path.iterdir()) == []


def test_it_is_for_its_owner_only_and_lines_are_only_added(tmp_path):
    path = tmp_path / "journal.jsonl"
    before = os.umask(0)
    try:
        Journal(path).append("received", task=0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_bytes()
    Journal(path).append("committed", task=0)
    assert path.read_bytes().startswith(first)
    assert path.read_bytes().count(b"\n") == 2


def test_events_are_as_they_will_be_read(tmp_path):
    path = tmp_path / "journal.jsonl"
    noted = Journal(path).append("prepared", forgotten={3: ("a", "b")})
    assert noted["forgotten"] == {"3": ["a", "b"]}
    assert Journal(path).events == [noted]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_torn_last_line_never_happened(data):
    with tempfile.TemporaryDirectory() as folder:
        path = three_lines(folder)
        lines = path.read_bytes().splitlines(keepends=True)
        torn = lines[2][: data.draw(st.integers(0, len(lines[2]) - 1))]
        path.write_bytes(lines[0] + lines[1] + torn)
        journal = Journal(path)
        assert [one["event"] for one in journal.events] == ["received", "started"]
        # Reading changes nothing; the next line overwrites what was torn.
        assert path.read_bytes() == lines[0] + lines[1] + torn
        journal.append("committed", task=0)
        assert path.read_bytes().startswith(lines[0] + lines[1] + b'{"event": "committed"')
        # Nothing of it is left behind a shorter line.
        assert path.read_bytes().endswith(f'"sha256": "{journal.head}"}}\n'.encode())
        again = Journal(path)
        assert [one["event"] for one in again.events] == ["received", "started", "committed"]
        assert again.head == journal.head


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_an_edit_of_any_byte_of_a_line_is_found(data):
    with tempfile.TemporaryDirectory() as folder:
        path = three_lines(folder)
        content = bytearray(path.read_bytes())
        # The end of the last line is not part of it: without it the line is torn.
        place = data.draw(st.integers(0, len(content) - 2))
        other = data.draw(st.sampled_from(b"\t\n\r \0{}[]\"',:0a") | st.integers(0, 255))
        if other == content[place]:
            other ^= 1
        number = bytes(content[:place]).count(b"\n") + 1
        content[place] = other
        path.write_bytes(content)
        assert f"line {number} of {path} was edited" in refusal(Journal, path)
        assert path.read_bytes() == content


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_byte_more_or_less_in_a_line_is_found(data):
    with tempfile.TemporaryDirectory() as folder:
        path = three_lines(folder)
        content = path.read_bytes()
        place = data.draw(st.integers(0, len(content) - 2))
        more = data.draw(st.binary(max_size=2))
        path.write_bytes(content[:place] + more + content[place + (not more) :])
        refusal(Journal, path)


@pytest.mark.parametrize("order", [(0, 2), (1, 2), (0, 2, 1), (0, 0, 1, 2), (1, 0, 2), (2,)])
def test_a_line_that_is_removed_repeated_or_moved_is_found(tmp_path, order):
    path = three_lines(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[number] for number in order))
    assert str(path) in refusal(Journal, path)


@pytest.mark.parametrize("line", ["", "[]", "{}", "null", '"text"', "7", '{"sha256": 1}', "\xff"])
def test_a_line_of_something_else_is_found(tmp_path, line):
    path = three_lines(tmp_path)
    path.write_bytes(path.read_bytes() + line.encode("latin-1") + b"\n")
    assert f"line 4 of {path}" in refusal(Journal, path)


def test_a_line_of_another_journal_is_found(tmp_path):
    path = three_lines(tmp_path)
    other = Journal(tmp_path / "other.jsonl")
    other.append("received", task=1)
    path.write_bytes(path.read_bytes() + (tmp_path / "other.jsonl").read_bytes())
    assert f"line 4 of {path}" in refusal(Journal, path)


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_line_for_which_there_is_no_room_leaves_the_file_as_it_was(tmp_path, room):
    path = three_lines(tmp_path)
    before = path.read_bytes()
    journal = Journal(path)
    head = journal.head
    with files_no_larger_than(len(before) + room):
        assert str(path) in refusal(journal.append, "committed", task=0)
    assert path.read_bytes() == before
    assert len(journal.events) == 3
    assert journal.head == head
    journal.append("committed", task=0)
    assert Journal(path).events == journal.events
    assert len(journal.events) == 4


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_line_that_is_not_known_to_be_on_disk_was_not_written(tmp_path, call, error):
    path = three_lines(tmp_path)
    before = path.read_bytes()
    journal = Journal(path)
    with patch.object(os, call, side_effect=OSError(error, os.strerror(error))):
        message = refusal(journal.append, "committed", task=0)
    assert str(path) in message
    assert os.strerror(error) in message
    assert path.read_bytes() == before
    assert len(Journal(path).events) == len(journal.events) == 3


def test_a_journal_that_is_gone_is_not_begun_again_in_the_middle(tmp_path):
    path = three_lines(tmp_path)
    journal = Journal(path)
    path.unlink()
    assert str(path) in refusal(journal.append, "committed", task=0)
    assert not path.exists()


def test_a_journal_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "journal.jsonl").mkdir()
    assert str(tmp_path / "journal.jsonl") in refusal(Journal, tmp_path / "journal.jsonl")
