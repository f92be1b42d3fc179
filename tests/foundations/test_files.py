"""Files that are whole or as they were, and folders for one process at a time."""

import json
import os
from unittest.mock import patch

import pytest

from split_unlearning.foundations.errors import StateError
from split_unlearning.foundations.files import (
    explained,
    locked,
    make_for_owner,
    sha256_of,
    write_durably,
    write_for_owner,
    write_json,
    write_whole,
)


@pytest.mark.parametrize("write", [write_whole, write_for_owner, write_durably])
def test_a_file_is_as_it_was_until_the_new_one_is_whole(tmp_path, write):
    path = tmp_path / "file"
    write(path, b"old")
    with (
        patch.object(os, "replace", side_effect=OSError(5, "broken")),
        pytest.raises(OSError, match="broken"),
    ):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_json_is_written_into_a_folder_that_need_not_be_there(tmp_path):
    folder = tmp_path / "a" / "b"
    value = {"text": "é", "none": None, "share": 0.1}
    assert write_json(folder / "file.json", value) == folder / "file.json"
    assert json.loads((folder / "file.json").read_text(encoding="utf-8")) == value


def test_what_json_cannot_hold_leaves_the_old_file_alone(tmp_path):
    write_json(tmp_path / "file.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"new": object()})
    assert json.loads((tmp_path / "file.json").read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize("write", [write_for_owner, write_durably])
def test_only_the_owner_reads_what_is_kept(tmp_path, write):
    make_for_owner(tmp_path / "a" / "b")
    write(tmp_path / "a" / "b" / "file", b"mine")
    modes = [path.stat().st_mode & 0o777 for path in sorted((tmp_path / "a").rglob("*"))]
    assert [(tmp_path / "a").stat().st_mode & 0o777, *modes] == [0o700, 0o700, 0o600]


def test_a_hash_is_of_the_whole_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert sha256_of(tmp_path / "file").startswith("e3b0c442")
    with pytest.raises(StateError, match="missing: No such file"):
        sha256_of(tmp_path / "missing")


def test_an_error_of_the_system_names_the_file(tmp_path):
    line = r"folder: .*; what was kept is as it was before"
    (tmp_path / "folder").mkdir()
    with pytest.raises(StateError, match=line), explained(tmp_path):
        (tmp_path / "folder").write_bytes(b"")


def test_a_locked_folder_is_refused_with_the_process(tmp_path):
    with locked(tmp_path):
        line = f"{tmp_path} is in use by process {os.getpid()}"
        with pytest.raises(StateError, match=line), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass
