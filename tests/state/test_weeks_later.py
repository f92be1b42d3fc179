"""Requests to a state that an earlier process left: who is needed, and how exact they are."""

import json
import random
import shutil
from functools import wraps
from unittest.mock import patch

import numpy as np
import pytest

from split_unlearning.foundations.errors import StateError, UserError
from split_unlearning.simulations.state.reception import AlreadyForgottenError
from split_unlearning.strategies.server.shards import Shards
from tests.local_grid import LocalRun
from tests.state.bench import (
    NUM_CLIENTS,
    PROJECTED,
    SHORT,
    ask,
    certificate,
    digests_noted,
    forgotten,
    from_scratch,
    ids_of,
    learn,
    one_line,
    plan_of,
    tasks,
    tree,
    unlearn,
    without_lock,
)

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


EVERY = {
    **{name: {**SHORT, **chosen} for name, chosen in BASELINES.items()},
    "splitwiper": {**SHORT, "slices": 2},
    "splitwiper-plus": {**SHORT, "strategy": "splitwiper-plus"},
    "gradient-projection": PROJECTED,
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("who", ["all", "0,2"])
def test_several_clients_forget_a_label_at_once(name, who, digits, tmp_path):
    settings = {**EVERY[name], "dataset": digits}
    path, one = tmp_path / "state", tmp_path / "one"
    learn(path, settings)
    clients = [0, 2] if who == "0,2" else [0, 1, 2]
    nodes = len(clients) if name.startswith("splitwiper") else NUM_CLIENTS
    run = unlearn(path, settings, ("class:2", who), nodes=nodes)
    gone = {client: ids_of(path, client, 2).tolist() for client in clients}
    assert {client: ids for client, ids in forgotten(path).items() if ids} == gone
    at_once = {**settings, "forget": "class:2", "forget_client": who}
    assert run.digests == LocalRun(NUM_CLIENTS, state_dir=str(one), **at_once).digests
    if name != "gradient-projection":
        assert certificate(path, settings)["holds"]
    assert unlearn(path, settings, ("class:2", who)) is None
    # What is left of the label, the others can ask for.
    if who == "all":
        assert "nothing that client 1 holds" in one_line(refused(path, ("class:2", 1)))
    else:
        assert list(ask(path, ("class:2", "all"))[0].counts) == [1]


def refused(path, *forget):
    with pytest.raises(UserError) as error:
        ask(path, *forget)
    return error


@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped", "splitfed"])
def test_a_baseline_can_do_nothing_weeks_later(strategy, digits, tmp_path):
    # Only who asks is told; the others have nothing to commit.
    settings = {**SHORT, "dataset": digits, "strategy": strategy, "unlearning": "none"}
    path = tmp_path / "state"
    before = learn(path, settings).digests
    assert unlearn(path, settings, ("class:2", 1), nodes=NUM_CLIENTS).digests == before
    assert not certificate(path, settings)["holds"]


def test_a_state_dir_can_be_moved(learned, tmp_path, sliced):
    first = shutil.copytree(learned, tmp_path / "here" / "state")
    unlearn(first, sliced, ("class:2", 1))
    second = first.rename(tmp_path / "there")
    run = unlearn(second, sliced, ("class:3", 0))
    gone = np.concatenate([ids_of(second, 1, 2), ids_of(second, 0, 3)])
    assert run.digests == from_scratch(second, sliced, gone)
    assert certificate(second, sliced)["holds"]
    assert not first.exists()
