"""Requests to a state that an earlier process left: who is needed, how exact, what is refused."""

import errno
import hashlib
import json
import os
import random
import shutil
from contextlib import contextmanager
from functools import wraps
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from split_unlearning.foundations.errors import StateError, UserError
from split_unlearning.foundations.files import open_for_owner
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.loading import load as load_data
from split_unlearning.simulations.preparation import deal
from split_unlearning.simulations.state.reception import AlreadyForgottenError
from split_unlearning.simulations.state.state_dir import StateDir, held
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.unlearning.state_folder import FORMAT, StateFolder, checksum
from tests.local_grid import LocalRun, dealt
from tests.state.bench import (
    NUM_CLIENTS,
    SHORT,
    ask,
    certificate,
    digests_noted,
    forgotten,
    learn,
    pieces,
    tasks,
    tree,
    unlearn,
)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, sliced):
    path = tmp_path_factory.mktemp("learned") / "state"
    learn(path, sliced)
    return path


@pytest.fixture
def state(learned, tmp_path):
    """A copy of what was learned, at another place."""
    return shutil.copytree(learned, tmp_path / "state")


def plan_of(path):
    state = held(str(path))
    return deal(state.config, state.num_clients)


def from_scratch(path, settings, gone):
    """The digests that training gives without samples, under the same plan."""
    dataset, plan = plan_of(path)
    kept = tuple(np.setdiff1d(ids, gone) for ids in plan.train)
    with dealt(dataset, Plan(kept, plan.test)):
        return LocalRun(NUM_CLIENTS, **settings).digests


def ids_of(path, client, label):
    dataset, plan = plan_of(path)
    ids = plan.train[client]
    return ids[dataset.y_train[ids] == label]


def one_line(error):
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# Who is needed.


def delete(folder):
    shutil.rmtree(folder)


def damage(folder):
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("harm", [delete, damage])
def test_only_who_asks_need_be_there(harm, state, sliced):
    for other in (0, 2):
        harm(state / "clients" / str(other))
    others = {name: held for name, held in tree(state).items() if name[:9] in _FOLDERS_OF_OTHERS}
    run = unlearn(state, sliced, ("class:2", 1))
    gone = ids_of(state, 1, 2)
    assert run.digests == digests_noted(state) == from_scratch(state, sliced, gone)
    # Nobody wrote to what is another's, not even to mend it.
    now = {name: held for name, held in tree(state).items() if name[:9] in _FOLDERS_OF_OTHERS}
    assert now == others


_FOLDERS_OF_OTHERS = ("clients/0", "clients/2")


def test_two_clients_at_once_are_one_training_of_the_server(learned, tmp_path, sliced):
    both = [("class:2", 1), ("samples:0.5@class:3", 2)]
    epochs = {}
    for name, groups in (("at once", [both]), ("in turn", [[one] for one in both])):
        path = shutil.copytree(learned, tmp_path / name)
        visits = []
        train = Shards.train

        @wraps(train)
        def counted(server, *arguments, visits=visits, train=train):
            visits.append(arguments)
            train(server, *arguments)

        with patch.object(Shards, "train", counted):
            for group in groups:
                unlearn(path, sliced, *group)
        epochs[name] = len(visits)
    # Three epochs on the first slice and one on both; the second request touches the second alone.
    assert epochs == {"at once": 3 + 1, "in turn": 3 + 1 + 1}
    assert digests_noted(tmp_path / "at once") == digests_noted(tmp_path / "in turn")
    assert [len(tasks(tmp_path / name)) for name in ("at once", "in turn")] == [2, 3]


@pytest.mark.parametrize("seed", range(2))
def test_requests_in_a_row_are_exact(seed, state, sliced, tmp_path):
    draw = random.Random(seed)
    gone = np.empty(0, dtype=np.int64)
    _, plan = plan_of(state)
    for number in range(4):
        client = draw.randrange(NUM_CLIENTS)
        left = np.setdiff1d(plan.train[client], gone)
        asked = sorted(draw.sample(left.tolist(), draw.randint(1, 5)))
        file = tmp_path / f"{number}.txt"
        file.write_text("\n".join(map(str, asked)))
        run = unlearn(state, sliced, (f"ids:{file}", client))
        gone = np.union1d(gone, asked)
        assert run.digests == digests_noted(state) == from_scratch(state, sliced, gone)
    assert sorted(one for ids in forgotten(state).values() for one in ids) == gone.tolist()
    assert certificate(state, sliced)["holds"]


def test_a_client_is_dropped_without_any_client(state, sliced):
    # It had asked for something before; nobody is left who knows what.
    unlearn(state, sliced, ("class:2", 1))
    for client in range(NUM_CLIENTS):
        (state / "clients" / str(client)).rename(state.parent / f"away-{client}")
    unlearn(state, sliced, ("client:1", 1), nodes=1, drop=True)
    counts = [task["samples"] for task in _phases(state)]
    assert counts == [0, 8, 24]
    for client in (0, 2):
        (state.parent / f"away-{client}").rename(state / "clients" / str(client))
    found = certificate(state, sliced, nodes=2)
    assert found["holds"]
    assert sorted(found["digests"]["kept"]["clients"]) == ["0", "2"]
    dropped = plan_of(state)[1].train[1]
    assert found["digests"]["kept"]["server"] == from_scratch(state, sliced, dropped)["server"]
    with pytest.raises(UserError, match="names nothing"):
        ask(state, ("class:0", 1))


def test_a_client_whose_part_is_damaged_can_be_dropped(state, sliced):
    damage(state / "clients" / "1")
    with pytest.raises(StateError, match="edited, or cut short"):
        ask(state, ("client:1", 1))
    unlearn(state, sliced, ("client:1", 1), drop=True)
    assert certificate(state, sliced, nodes=2)["holds"]


def _phases(path):
    return json.loads((path / "result.json").read_text(encoding="utf-8"))["phases"]


def test_what_was_forgotten_is_not_forgotten_again(state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    before = tree(state)
    with pytest.raises(AlreadyForgottenError, match=r"class:2 of client 1 was asked for at 2"):
        ask(state, ("class:2", 1))
    assert without_lock(tree(state)) == without_lock(before)


# The baselines.

BASELINES = {
    "vanilla": {"strategy": "vanilla"},
    "vanilla handoff": {"strategy": "vanilla", "client_sync": "handoff"},
    "u-shaped": {"strategy": "u-shaped"},
    "splitfed": {"strategy": "splitfed"},
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_forgets_as_in_one_go(name, digits, tmp_path):
    settings = {**SHORT, "dataset": digits, **BASELINES[name]}
    path = tmp_path / "state"
    learn(path, settings)
    run = unlearn(path, settings, ("class:2", 1), nodes=NUM_CLIENTS)
    at_once = {**settings, "forget": "class:2", "forget_client": 1}
    assert run.digests == LocalRun(NUM_CLIENTS, **at_once).digests
    assert run.digests == LocalRun(NUM_CLIENTS, state_dir=str(tmp_path / "one"), **at_once).digests
    assert certificate(path, settings)["holds"]
    assert certificate(tmp_path / "one", at_once)["holds"]


@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped", "splitfed"])
def test_a_baseline_can_do_nothing_weeks_later(strategy, digits, tmp_path):
    # Only who asks is told; the others have nothing to commit.
    settings = {**SHORT, "dataset": digits, "strategy": strategy, "unlearning": "none"}
    path = tmp_path / "state"
    before = learn(path, settings).digests
    assert unlearn(path, settings, ("class:2", 1), nodes=NUM_CLIENTS).digests == before
    assert not certificate(path, settings)["holds"]


# What verification finds.


@pytest.mark.parametrize(
    ("strategy", "unlearning", "segment"),
    [
        ("splitwiper", "fine-tune", "client 1"),
        ("splitwiper", "none", "client 1"),
        ("vanilla", "fine-tune", "client 0"),
    ],
)
def test_what_is_not_exact_does_not_hold(strategy, unlearning, segment, digits, tmp_path):
    settings = {**SHORT, "dataset": digits, "strategy": strategy, "unlearning": unlearning}
    path = tmp_path / "state"
    learn(path, settings)
    assert certificate(path, settings)["holds"]
    unlearn(path, settings, ("class:2", 1), nodes=NUM_CLIENTS)
    found = certificate(path, settings)
    assert not found["holds"]
    difference = found["first_difference"]
    assert difference["segment"] == segment
    assert difference["kept"] != difference["reference"]


def another_segment(data):
    """The same segment with one bit of one weight changed."""
    weights = load(data)
    first = sorted(weights)[0]
    weights[first].view(torch.int32).reshape(-1)[0] ^= 1
    return save(weights)


def sign_again(folder, name, data):
    """Replace a file, and the hash of it in the manifest, and the manifest's own."""
    manifest = folder / "current.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content.pop("sha256")
    file = content["files"][name]
    (folder / file["file"]).write_bytes(data)
    file["sha256"] = hashlib.sha256(data).hexdigest()
    manifest.write_text(json.dumps({**content, "sha256": checksum(content)}), encoding="utf-8")


@pytest.mark.parametrize("folder", ["server", "clients/2"])
def test_another_segment_is_found(folder, state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    kept = StateFolder(state / folder)["segment"]
    sign_again(state / folder, "segment", another_segment(kept))
    found = certificate(state, sliced)
    assert not found["holds"]
    named = "server" if folder == "server" else "client 2"
    assert found["first_difference"]["segment"] == named


def test_another_segment_that_was_committed_is_found(state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    for folder in (state / "clients" / "2", state / "server"):
        kept = StateFolder(folder)
        segment = another_segment(kept["segment"])
        kept.begin("another")
        kept["segment"] = segment
        kept.flush()
        kept.commit("another")
        if folder.name == "2":
            found = certificate(state, sliced)
            assert found["first_difference"]["segment"] == "client 2"
    with pytest.raises(StateError, match="do not belong together"):
        certificate(state, sliced)


def restore(source, state, *folders):
    """Put parts back as they were in an older copy of a state-dir."""
    for name in folders:
        shutil.rmtree(state / name)
        shutil.copytree(source / name, state / name)


def test_parts_of_an_older_copy_are_refused(learned, state, sliced):
    unlearn(state, sliced, ("class:2", 1))
    new = shutil.copytree(state, state.parent / "new")
    # The client alone: it would know of samples that it had forgotten.
    restore(learned, state, "clients/1")
    with pytest.raises(StateError, match=r"clients/1 is not what was kept there last"):
        ask(state, ("class:3", 1))
    assert not certificate(state, sliced)["holds"]
    # All but the journal: training without what clients know as forgotten gives what is kept.
    restore(learned, state, "server")
    for command in (certificate, unlearn_more):
        with pytest.raises(StateError, match=r"the server's part .* do not belong together"):
            command(state, sliced)
    # The server alone.
    restore(new, state, "clients/1")
    with pytest.raises(StateError, match=r"the server's part .* do not belong together"):
        certificate(state, sliced)
    # The journal alone.
    restore(new, state, "server")
    shutil.copy(learned / "journal.jsonl", state / "journal.jsonl")
    with pytest.raises(StateError, match=r"the server's part .* do not belong together"):
        unlearn(state, sliced, ("class:3", 0))


def unlearn_more(state, sliced):
    return unlearn(state, sliced, ("class:3", 0))


def test_a_client_that_does_not_ask_is_refused_when_it_is_older(digits, tmp_path):
    settings = {**SHORT, "dataset": digits, "strategy": "vanilla"}
    path = tmp_path / "state"
    learn(path, settings)
    old = shutil.copytree(path, tmp_path / "old")
    unlearn(path, settings, ("class:2", 1), nodes=NUM_CLIENTS)
    new = shutil.copytree(path, tmp_path / "new")
    restore(old, path, "clients/1")
    # Everybody trains again, and client 1 would do so with what it had forgotten.
    with pytest.raises(ClientFailureError, match=r"clients/1 is not what was kept there last"):
        unlearn(path, settings, ("class:2", 0), nodes=NUM_CLIENTS)
    restore(new, path, "clients/1")
    unlearn(path, settings, nodes=NUM_CLIENTS)
    assert certificate(path, settings)["holds"]


def test_a_state_dir_can_be_moved(learned, tmp_path, sliced):
    first = shutil.copytree(learned, tmp_path / "here" / "state")
    unlearn(first, sliced, ("class:2", 1))
    second = first.rename(tmp_path / "there")
    run = unlearn(second, sliced, ("class:3", 0))
    gone = np.concatenate([ids_of(second, 1, 2), ids_of(second, 0, 3)])
    assert run.digests == from_scratch(second, sliced, gone)
    assert certificate(second, sliced)["holds"]
    assert not first.exists()


# What is refused; the state is as it was.


def without_lock(files):
    return {name: held for name, held in files.items() if name != "lock"}


def commands(state, sliced):
    """Everything that can be done with a state-dir, by name."""
    return {
        "ask": lambda: ask(state, ("class:2", 1)),
        "run": lambda: learn(state, sliced),
        "verify": lambda: certificate(state, sliced),
    }


def test_a_second_process_is_kept_away(state, sliced):
    before = tree(state)
    with held(str(state)).locked():
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
        if held(str(path)).journal.events[-1]["event"] in ("measured", "received", "started"):
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
