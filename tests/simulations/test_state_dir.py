"""The folder that outlives a run: whole, its owner's, one process's at a time."""

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.loading import load
from split_unlearning.simulations.preparation import Preparation
from split_unlearning.simulations.state import state_dir
from split_unlearning.simulations.state.agenda import received, tasks_of
from split_unlearning.simulations.state.state_dir import StateDir, client_folder, open_state
from split_unlearning.unlearning.certificate import check, sign
from split_unlearning.unlearning.state_folder import FORMAT
from tests.made_up import read, result
from tests.refusals import refusal

RECEIVED = [received(0, ())]
ODD = {
    "forget": 'class:a "quoted" name;class:ü\\\\n',
    "options": "a='1 2' b=#3",
    "learning-rate": 1e-7,
    "skip-absent": False,
    "seed": 2**62,
}


def preparation(config, clients):
    """Any data will do: what is learned from does not matter here."""
    dealt = tuple(np.arange(client, 1442, clients) for client in range(clients))
    return Preparation(config, load("digits"), Plan(dealt, dealt))


def founded(path, clients=3, **chosen):
    config = RunConfig.from_mapping({"state-dir": str(path), **chosen})
    state = StateDir(path)
    with state.locked():
        state.begin(preparation(config, clients), RECEIVED)
    return state


@pytest.fixture
def path(tmp_path):
    """Return a state-dir."""
    return founded(tmp_path / "state").path


def on_disk(path):
    return {one.name: one.read_bytes() for one in path.iterdir() if one.is_file()}


@pytest.mark.parametrize("there", [False, True])
def test_looking_at_a_folder_that_holds_nothing_changes_nothing(tmp_path, there):
    path = tmp_path / "some" / "state"
    if there:
        path.mkdir(parents=True)
    state = StateDir(path)
    assert (state.config, state.num_clients, state.journal.events) == (None, 0, [])
    assert state.phases() == ()
    assert path.exists() == there
    assert not there or list(path.iterdir()) == []


@pytest.mark.parametrize("chosen", [{}, ODD], ids=["defaults", "odd"])
def test_what_was_begun_is_read_again(tmp_path, chosen):
    state = founded(tmp_path / "state", 7, **chosen)
    again = StateDir(tmp_path / "state")
    expected = RunConfig.from_mapping({"state-dir": str(tmp_path / "state"), **chosen})
    assert state.config == again.config == expected
    assert state.num_clients == again.num_clients == 7
    assert again.journal.events == state.journal.events
    assert [task.number for task in tasks_of(again.journal)] == [0]
    assert open_state(str(tmp_path / "state")).config == expected


def test_a_state_dir_may_be_moved(tmp_path, path):
    moved = path.rename(tmp_path / "elsewhere")
    state = StateDir(moved)
    assert state.config.state_dir == str(moved)
    state.check_same(replace(state.config, state_dir=str(moved)))
    with pytest.raises(KeyError):
        client_folder(str(moved), 3, "")["segment"]
    assert state.server_files == (str(moved / "server"), "")


def test_everything_is_for_its_owner_only(tmp_path):
    before = os.umask(0)
    try:
        path = founded(tmp_path / "new" / "state").path
    finally:
        os.umask(before)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.iterdir()}
    assert modes == dict.fromkeys(
        ["lock", "run.toml", "journal.jsonl", "certificate-key.pem"], 0o600
    )
    assert {stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)} == {0o700}


def test_an_empty_folder_that_others_could_read_is_closed_to_them(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    founded(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_its_key_signs_certificates(tmp_path, path):
    state = StateDir(path)
    other = founded(tmp_path / "other")
    signed = sign({"holds": True}, state.key.read_bytes())
    check(signed, state.key.read_bytes())
    assert "not signed with the key" in refusal(
        check, signed, other.key.read_bytes(), error=UserError
    )


def test_another_key_signs_nothing(tmp_path, path):
    state, other = StateDir(path), founded(tmp_path / "other")
    state.key.write_bytes(other.key.read_bytes())
    assert "is not the key that" in refusal(StateDir(path).signing_key)


# What is no state-dir.


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "result.json", "run.toml.bak"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    message = refusal(StateDir, tmp_path, error=UserError)
    assert message.startswith(f"state-dir='{tmp_path}' is not possible; allowed: ")
    assert name in message
    assert on_disk(tmp_path) == {name: b"mine"}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refusal(StateDir, tmp_path / "file")


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_holds_no_state_has_nothing_to_go_on_with(tmp_path, there):
    if there:
        (tmp_path / "state").mkdir()
    message = refusal(open_state, str(tmp_path / "state"), error=UserError)
    assert message.startswith(f"{tmp_path / 'state'} holds no state")


# What is damaged.


def test_a_missing_journal_is_named(path):
    (path / "journal.jsonl").unlink()
    before = on_disk(path)
    assert f"{path / 'journal.jsonl'} is missing" in refusal(StateDir, path)
    assert on_disk(path) == before


def test_an_edited_journal_is_named(path):
    journal = path / "journal.jsonl"
    journal.write_text(journal.read_text().replace("received", "Received"))
    assert f"line 1 of {journal}" in refusal(StateDir, path)


def test_what_another_version_wrote_is_refused_with_both_formats(path):
    run = path / "run.toml"
    first, rest = run.read_text().split("\n", 1)
    assert first == f"format = {FORMAT}"
    run.write_text(f"format = {FORMAT + 4}\n{rest}")
    before = on_disk(path)
    message = refusal(StateDir, path)
    assert message.startswith(f"{run} is in format {FORMAT + 4}; ")
    assert f"this version reads format {FORMAT}" in message
    assert on_disk(path) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"format =",
        b"\xff\xfe",
        b"format = %d\n[config]\nseed = 0\n" % FORMAT,
        b"format = %d\nclients = 3\n" % FORMAT,
        b'format = %d\nclients = "three"\n[config]\nseed = 0\n' % FORMAT,
        b"format = %d\nclients = 3\nconfig = 4\n" % FORMAT,
        b"format = %d\nclients = 3\n[config]\nsede = 0\n" % FORMAT,
        b'format = %d\nclients = 3\n[config]\nseed = "0"\n' % FORMAT,
        b"format = %d\nclients = 3\n[config]\nseed = -1\n" % FORMAT,
    ],
)
def test_a_run_that_cannot_be_read_is_named(path, content):
    (path / "run.toml").write_bytes(content)
    before = on_disk(path)
    assert str(path / "run.toml") in refusal(StateDir, path)
    assert on_disk(path) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"3", b"\xff"])
def test_a_result_that_cannot_be_read_is_named(path, content):
    (path / "result.json").write_bytes(content)
    assert str(path / "result.json") in refusal(StateDir(path).phases)


def test_a_result_is_read_again(path):
    state = StateDir(path)
    assert state.phases() == ()
    measured = read(result())
    state.write_result(measured)
    assert StateDir(path).phases() == measured.phases
    assert json.loads((path / "result.json").read_text())["schema_version"] == 1


# What may change from one run to the next.

OTHER = {
    "strategy": "vanilla",
    "unlearning": "none",
    "dataset": "npz:/other.npz",
    "data-dir": "/other",
    "benchmark": "/other",
    "download": True,
    "distribution": "iid",
    "model": "vgg",
    "pretrained": "/other",
    "cut": "conv1",
    "client-norm": "group",
    "forget": "class:3",
    "forget-client": "all",
    "client-sync": "handoff",
    "client-init": "shared",
    "splitfed-version": 2,
    "stable-clients": "1,0",
    "init-from": "splitwiper",
    "options": "a=1",
    "skip-absent": True,
    "distillation-alpha": 0.25,
    "momentum": 0.5,
    "cache-codec": "int8",
    "shares": "whole",
    "client-part": "local",
    "lost-gradients": "nearest",
    "fine-tune-share": 0.5,
    "projection-variant": "gs",
    "projection-weighting": "none",
    "projection-devaluation": 0.5,
    "expansion": "2",
    "copies": "replicate",
    "mechanism": "gaussian",
    "epsilon": "1.0",
    "delta": 1e-6,
    "privacy-unit": "element",
    "secrets": "drawn",
    "consensus-add": 0.5,
    "consensus-finish": 0.5,
    "attacks": True,
    "label-mechanism": "rr-with-prior",
    "gradient-noise": "max-norm",
    "shadow-share": 0.5,
    "audit": True,
    "keep-models": True,
    "backdoor": "3",
    "precision": "bfloat16",
    "codec": "float16",
}
DIFFERS = {
    "out": "/tmp/other",
    "overwrite": True,
    "key-dir": "/tmp/keys",
    "verify": True,
    "server-num-gpus": 1.0,
    "server-num-cpus": 1.0,
}
DIFFERS |= {"round-timeout": 5.0, "bandwidth-mbps": 1.0, "latency-ms": 1.0}


@pytest.mark.parametrize("key", [key for key in RunConfig().as_mapping() if key != "state-dir"])
def test_a_key_that_training_depends_on_cannot_change(path, key):
    state = StateDir(path)
    old = state.config.as_mapping()[key]
    new = DIFFERS.get(key, OTHER.get(key, old if isinstance(old, str) else old + 1))
    assert new != old
    changed = RunConfig.from_mapping({**state.config.as_mapping(), key: new})
    if key in DIFFERS:
        state.check_same(changed)
        return
    message = refusal(state.check_same, changed, error=UserError)
    assert message.startswith(f"{key}={new!r} is not possible; allowed: {old!r}")
    assert str(path) in message


# One process at a time.

HOLD = """
import sys, time
from pathlib import Path
from split_unlearning.simulations.state.state_dir import StateDir
with StateDir(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_another_process_that_has_it_is_named_and_its_end_frees_it(path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        before = on_disk(path)
        message = refusal(StateDir(path).locked().__enter__)
        assert message == f"{path} is in use by process {holder.pid}"
        assert on_disk(path) == before
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with StateDir(path).locked():
        assert (path / "lock").read_text() == str(os.getpid())


def test_who_leaves_lets_the_next_one_in(path):
    for _ in range(2):
        with StateDir(path).locked():
            refusal(StateDir(path).locked().__enter__)

    def interrupted():
        with StateDir(path).locked():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with StateDir(path).locked():
        pass


def test_a_lock_without_a_name_in_it_is_held_all_the_same(path):
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert str(path) in refusal(StateDir(path).locked().__enter__)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    state = StateDir(tmp_path / "new")
    state.path = tmp_path / "file" / "state"
    assert str(tmp_path / "file") in refusal(state.locked().__enter__)


# Beginning, and beginning again.


@pytest.mark.parametrize("left", [b"", b"format = %d\ncli" % FORMAT], ids=["nothing", "part"])
def test_what_was_not_begun_to_its_end_is_begun_again(tmp_path, left):
    path = tmp_path / "state"
    config = RunConfig.from_mapping({"state-dir": str(path), "seed": 1})
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(path, data):
        if path.name != "run.toml":
            return write_durably(path, data)
        path.with_name("run.toml.part").write_bytes(left)
        raise full

    write_durably = state_dir.write_durably
    state = StateDir(path)
    with (
        state.locked(),
        patch.object(state_dir, "write_durably", write),
    ):
        message = refusal(state.begin, preparation(config, 3), [received(0, ()), received(1, ())])
    assert os.strerror(errno.ENOSPC) in message
    first = (path / "certificate-key.pem").read_bytes()
    # Another config will do: nothing was trained with this one.
    again = StateDir(path)
    assert again.config is None
    refusal(open_state, str(path), error=UserError)
    with again.locked():
        again.begin(preparation(replace(config, seed=2), 5), RECEIVED)
    state = StateDir(path)
    assert (state.config.seed, state.num_clients) == (2, 5)
    assert [event["task"] for event in state.journal.events] == [0]
    assert state.key.read_bytes() != first


def test_a_damaged_journal_of_what_was_not_begun_is_no_obstacle(tmp_path):
    path = founded(tmp_path / "state").path
    (path / "run.toml").unlink()
    (path / "journal.jsonl").write_bytes(b"{torn\nand more\n")
    (path / "journal.jsonl.part").write_bytes(b"")
    founded(path)
    assert [event["event"] for event in StateDir(path).journal.events] == ["received"]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_what_cannot_be_written_is_one_line(tmp_path, call):
    state = StateDir(tmp_path / "state")
    config = RunConfig.from_mapping({"state-dir": str(state.path)})
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with state.locked(), patch.object(os, call, side_effect=refused):
        message = refusal(state.begin, preparation(config, 3), RECEIVED)
    assert str(state.path) in message
    assert os.strerror(errno.EROFS) in message
    assert StateDir(tmp_path / "state").config is None
