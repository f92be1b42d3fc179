"""Requests that come weeks after learning: written down once, whole, or refused in one line."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.clients.forgotten import FORGOTTEN, ForgottenSamples
from split_unlearning.foundations.errors import StateError, UserError
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.preparation import deal, prepare
from split_unlearning.simulations.state.agenda import first_events, tasks_of
from split_unlearning.simulations.state.reception import AlreadyForgottenError, receive, withdraw
from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.unlearning.salted import new_salt, salted
from split_unlearning.unlearning.tensor_store import TensorStore

CLIENTS = 4


def learned(path, clients=CLIENTS, **chosen):
    """Return a state-dir as a run leaves it, without what it trained."""
    named = {"distribution": "iid", "forget": "", "state-dir": str(path)} | {
        name.replace("_", "-"): value for name, value in chosen.items()
    }
    config = RunConfig.from_mapping(named)
    prepared = prepare(config, clients)
    state = StateDir(path)
    with state.locked():
        state.begin(prepared, first_events(prepared.forgettings, config.asking))
        finish(state)
    return state


def finish(state, *numbers):
    """Note the tasks of these numbers as done, default all; their clients keep what they forgot."""
    for task in tasks_of(state.journal):
        if task.measured or (numbers and task.number not in numbers):
            continue
        _, plan = deal(state.config, state.num_clients)
        for client, request in task.requests(plan).items():
            if not task.drop:
                forget(state, client, request)
        attempt, changed = f"request{task.number}", [] if task.drop else sorted(task.counts)
        server = state.server
        server.begin(attempt)
        server.flush()
        server.commit(attempt)
        state.journal.append("started", task=task.number, attempt=attempt, environment={})
        state.journal.append("prepared", task=task.number, attempt=attempt, changed=changed)
        state.journal.append("committed", task=task.number)
        state.journal.append("measured", task=task.number)


def forget(state, client, request):
    """Leave out on a client what a request means there."""
    dataset, plan = deal(state.config, state.num_clients)
    folder = state.client(client)
    folder.begin(f"request{request.number}")
    kept = TensorStore(folder)
    ids = np.setdiff1d(plan.train[client], ForgottenSamples(kept).among(plan.train[client]))
    selected = request.select(
        client, ids, dataset.y_train[ids], dataset.class_names, state.config.seed
    )
    known = kept.load(FORGOTTEN) or {"salt": new_salt()}
    known[str(request.number)] = salted(selected, known["salt"])
    kept.save(FORGOTTEN, known)
    folder.flush()
    folder.commit(f"request{request.number}")


def held(state, client, label=None):
    """Return the ids that a client was dealt, of one label or of all."""
    dataset, plan = deal(state.config, state.num_clients)
    ids = plan.train[client]
    return ids if label is None else ids[dataset.y_train[ids] == label]


def ids_file(path, ids):
    path.write_text("\n".join(map(str, ids)))
    return f"ids:{path}"


def refusal(state, forget, drop=False, error=UserError):
    """Return the one line with which requests are refused; nothing is written down of them."""
    before = (state.path / "journal.jsonl").read_bytes()
    with pytest.raises(error) as refused:
        receive(state, forget, drop)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    assert (state.path / "journal.jsonl").read_bytes() == before
    return message


def summary(tasks):
    return [(task.number, [one.text for one in task.asked], task.counts) for task in tasks]


def test_a_request_is_written_down_before_anything_else_happens(tmp_path):
    state = learned(tmp_path / "state")
    (task,) = receive(state, [("class:2", 1)])
    assert summary([task]) == [(1, ["class:2"], {1: len(held(state, 1, 2))})]
    assert (task.phase, task.attempt, task.drop, task.measured) == ("unlearn", "", False, False)
    assert tasks_of(StateDir(tmp_path / "state").journal) == tasks_of(state.journal)
    assert StateDir(tmp_path / "state").journal.events[-1]["event"] == "received"


def test_requests_of_different_clients_are_one_task(tmp_path):
    state = learned(tmp_path / "state")
    tasks = receive(state, [("class:2", 3), ("client:0", 0), ("samples:0.5@class:7", 1)])
    assert summary(tasks) == [
        (
            1,
            ["class:2", "client:0", "samples:0.5@class:7"],
            {
                3: len(held(state, 3, 2)),
                0: len(held(state, 0)),
                1: round(len(held(state, 1, 7)) / 2),
            },
        )
    ]


def test_those_of_one_client_are_done_in_a_row_of_what_is_left(tmp_path):
    state = learned(tmp_path / "state")
    tasks = receive(state, [("class:2;class:3", 0), ("class:2", 1), ("client:0", 0)])
    of = {label: len(held(state, 0, label)) for label in (2, 3)}
    rest = len(held(state, 0)) - of[2] - of[3]
    assert summary(tasks) == [
        (1, ["class:2"], {0: of[2]}),
        (2, ["class:3", "class:2"], {0: of[3], 1: len(held(state, 1, 2))}),
        (3, ["client:0"], {0: rest}),
    ]


@settings(deadline=None, max_examples=25)
@given(
    wanted=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, CLIENTS - 1)),
        unique=True,
        min_size=1,
        max_size=8,
    )
)
def test_no_task_asks_a_client_twice_and_no_request_is_lost(tmp_path_factory, wanted):
    state = learned(tmp_path_factory.mktemp("state") / "state")
    tasks = receive(state, [(f"class:{label}", client) for label, client in wanted])
    asked = [(one.text, one.forget_client) for task in tasks for one in task.asked]
    assert asked == [(f"class:{label}", client) for label, client in wanted]
    assert [task.number for task in tasks] == list(range(1, len(tasks) + 1))
    for task in tasks:
        assert len({one.forget_client for one in task.asked}) == len(task.asked)
        for one in task.asked:
            assert one.counts == {one.forget_client: len(held(state, one.forget_client, one.label))}


def test_ids_mean_samples_of_whoever_holds_them(tmp_path):
    state = learned(tmp_path / "state")
    ids = [int(held(state, client)[3]) for client in (0, 2)] + [int(held(state, 2)[5])]
    tasks = receive(state, [(ids_file(tmp_path / "ids", ids), 0), ("class:2", 1), ("class:3", 2)])
    assert [sorted(task.counts) for task in tasks] == [[0, 1, 2], [2]]
    assert (tasks[0].counts[0], tasks[0].counts[2]) == (1, 2)
    written = json.dumps([event for event in state.journal.events if event["event"] == "received"])
    assert not [one for one in ids if one > 999 and str(one) in written.replace(str(tmp_path), "")]


# Until it is finished.


def test_the_same_command_again_is_not_written_down_again(tmp_path):
    state = learned(tmp_path / "state")
    wanted = [("class:2", 0), ("class:3", 0), ("client:1", 1)]
    tasks = receive(state, wanted)
    before = (tmp_path / "state" / "journal.jsonl").read_bytes()
    for again in (wanted, wanted[::-1], [("class:2;class:3", 0), ("client:1", 1)], []):
        assert receive(StateDir(tmp_path / "state"), again) == tasks
    assert (tmp_path / "state" / "journal.jsonl").read_bytes() == before


def test_the_same_command_finishes_what_is_left_of_it(tmp_path):
    state = learned(tmp_path / "state")
    wanted = [("class:2", 0), ("class:3", 0)]
    _, second = receive(state, wanted)
    finish(state, 1)
    before = (tmp_path / "state" / "journal.jsonl").read_bytes()
    assert receive(state, wanted) == receive(state, []) == [second]
    assert (tmp_path / "state" / "journal.jsonl").read_bytes() == before


def test_what_was_begun_is_finished_with_what_is_known_of_it(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 0)])
    state.journal.append("started", task=1, attempt="b", environment={})
    state.journal.append("prepared", task=1, attempt="b")
    (task,) = receive(StateDir(tmp_path / "state"), [("class:2", 0)])
    assert (task.attempt, task.prepared["attempt"], task.measured) == ("b", "b", False)


@pytest.mark.parametrize(
    ("forget", "drop"),
    [
        ([("class:3", 0)], False),
        ([("class:2", 1)], False),
        ([("class:2", 0), ("class:3", 0)], False),
        ([("class:2", 0)], True),
        ([("client:0", 0)], True),
    ],
)
def test_another_request_waits_until_the_first_is_finished(tmp_path, forget, drop):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 0)])
    message = refusal(state, forget, drop)
    assert "'class:2' is not finished" in message
    assert f"split-unlearning unlearn {state.path}" in message


def test_part_of_what_is_not_finished_is_another_request(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 0), ("class:3", 1)])
    assert "'class:2; class:3' is not finished" in refusal(state, [("class:2", 0)])


@pytest.mark.parametrize("forget", [[], [("class:2", 0)]])
def test_learning_is_finished_by_the_command_that_began_it(tmp_path, forget):
    config = RunConfig.from_mapping({"state-dir": str(tmp_path / "state")})
    state = StateDir(tmp_path / "state")
    with state.locked():
        prepared = prepare(config, 3)
        state.begin(prepared, first_events(prepared.forgettings, 0))
    state.journal.append("started", task=0, attempt="a", environment={})
    assert "not finished learning" in refusal(state, forget)


def test_what_the_learning_run_still_had_to_forget_is_finished_here(tmp_path):
    config = RunConfig.from_mapping({"state-dir": str(tmp_path / "state")})
    state = StateDir(tmp_path / "state")
    with state.locked():
        prepared = prepare(config, 3)
        state.begin(prepared, first_events(prepared.forgettings, 0))
    finish(state, 0)
    assert [task.text for task in receive(state, [])] == ["class:2"]
    assert [task.text for task in receive(state, [("class:2", 0)])] == ["class:2"]


# When it is done.


@pytest.mark.parametrize("text", ["class:2", "client:0", "samples:1@class:2", "ids"])
def test_what_is_done_is_said_to_be_done_and_when(tmp_path, text):
    state = learned(tmp_path / "state")
    if text == "ids":
        text = ids_file(tmp_path / "ids", held(state, 2)[:4])
    (task,) = receive(state, [(text, 0)])
    finish(state)
    message = refusal(state, [(text, 0)], error=AlreadyForgottenError)
    assert text in message
    assert task.received in message
    # It is no mistake of the user's.
    assert not issubclass(AlreadyForgottenError, UserError)


def test_several_that_are_done_are_each_said_to_be(tmp_path):
    state = learned(tmp_path / "state")
    wanted = [("class:2", 0), ("class:3", 1)]
    receive(state, wanted)
    finish(state)
    message = refusal(state, wanted, error=AlreadyForgottenError)
    assert "class:2 of client 0" in message
    assert "class:3 of client 1" in message


@pytest.mark.parametrize("order", [1, -1])
def test_nothing_is_left_out_silently_because_something_else_is_done(tmp_path, order):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 0)])
    finish(state)
    assert "class:2 of client 0" in refusal(state, [("class:2", 0), ("class:3", 0)][::order])


def test_the_same_label_of_another_client_is_another_request(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 0)])
    finish(state)
    (task,) = receive(state, [("class:2", 1)])
    assert summary([task]) == [(2, ["class:2"], {1: len(held(state, 1, 2))})]


def test_what_was_forgotten_is_not_counted_again(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("samples:0.5@class:2", 0)])
    finish(state)
    half = round(len(held(state, 0, 2)) / 2)
    (task,) = receive(state, [("client:0", 0)])
    assert task.counts == {0: len(held(state, 0)) - half}


def test_there_is_something_to_ask_for(tmp_path):
    state = learned(tmp_path / "state")
    message = refusal(state, [])
    assert str(state.path) in message
    assert "--forget" in message


# What is not possible.


@pytest.mark.parametrize(
    ("text", "client", "parts"),
    [
        ("client:4", 0, ["client:4", "0 to 3"]),
        ("class:2", 9, ["class:2", "0 to 3"]),
        ("class:bird", 0, ["class:bird", "10 labels"]),
        ("ids:/no/such/file", 0, ["ids:/no/such/file"]),
        ("bird", 0, ["bird"]),
        ("client:0;client:1;client:2;client:3", 0, ["client:3", "something to learn from"]),
        ("class:2;class:2", 0, ["class:2", "client 0 holds"]),
    ],
)
@pytest.mark.parametrize("beside", [[], [("class:5", 2)]])
def test_the_impossible_is_refused_and_what_was_asked_beside_it(
    tmp_path, text, client, parts, beside
):
    state = learned(tmp_path / "state")
    message = refusal(state, [*beside, (text, client)])
    assert all(part in message for part in parts)


def test_ids_that_nobody_holds_any_more_are_refused(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 1)])
    finish(state)
    gone = int(held(state, 1, 2)[0])
    message = refusal(state, [(ids_file(tmp_path / "ids", [gone]), 0)])
    assert f"names sample {gone}" in message


def test_something_is_left_to_learn_from_after_all_requests(tmp_path):
    state = learned(tmp_path / "state", clients=2)
    almost = held(state, 1)[:-2]
    receive(state, [("client:0", 0), (ids_file(tmp_path / "ids", almost), 0)])
    finish(state)
    (last, _) = held(state, 1)[-2:]
    message = refusal(state, [(ids_file(tmp_path / "last", [last]), 0)])
    assert "something to learn from" in message


# Nobody's folder is read but those meant.


def damage(state, client):
    """Leave something on a client's place that cannot be read; return its path."""
    folder = state.path / "clients" / str(client)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "current.json").write_text("not a manifest")
    return folder / "current.json"


def test_the_folders_of_others_are_not_read(tmp_path):
    state = learned(tmp_path / "state")
    damaged = [damage(state, client) for client in (0, 2, 3)]
    ids = ids_file(tmp_path / "ids", held(state, 1)[-3:])
    tasks = receive(state, [("class:2", 1), ("samples:0.5@class:3", 1), (ids, 0), ("client:1", 1)])
    assert {client for task in tasks for client in task.counts} == {1}
    for client in (0, 2, 3):
        other = learned(tmp_path / f"state-{client}")
        file = damage(other, client)
        for text in ("class:2", f"client:{client}"):
            assert str(file) in refusal(other, [(text, client)], error=StateError)
    assert [one.read_text() for one in damaged] == ["not a manifest"] * 3


def test_nothing_is_written_but_the_journal(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 0)])
    finish(state)

    def files():
        return {
            one: one.read_bytes()
            for one in state.path.rglob("*")
            if one.is_file() and one.name != "journal.jsonl"
        }

    before = files()
    receive(state, [("class:3", 0), ("client:2", 2)])
    assert files() == before


# Clients that are gone.


@pytest.mark.parametrize("strategy", ["vanilla", "splitfed", "u-shaped"])
def test_dropping_is_refused_where_what_a_client_gave_is_everywhere(tmp_path, strategy):
    state = learned(tmp_path / "state", strategy=strategy)
    message = refusal(state, [("client:1", 1)], drop=True)
    assert message.startswith(f"--drop-client='{strategy}' is not possible; allowed: ")
    assert "splitwiper" in message


def test_a_client_that_was_dropped_holds_nothing_any_more(tmp_path):
    state = learned(tmp_path / "state")
    (task,) = receive(state, [("client:1", 1)], drop=True)
    assert (task.drop, task.counts) == (True, {1: len(held(state, 1))})
    assert receive(state, [("client:1", 1)], drop=True) == receive(state, []) == [task]
    finish(state)
    # Its folder is gone with it, or is anything.
    damage(state, 1)
    assert "nothing any more" in refusal(state, [("class:2", 1)])
    gone = refusal(state, [("client:1", 1)], drop=True, error=AlreadyForgottenError)
    assert "client:1" in gone
    ids = ids_file(tmp_path / "ids", held(state, 1)[:1])
    assert "which no client holds" in refusal(state, [(ids, 0)])
    assert receive(state, [("class:2", 0)])[0].counts == {0: len(held(state, 0, 2))}


def test_a_client_is_dropped_without_a_look_at_what_it_kept(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 1), ("class:3", 1), ("class:2", 0)])
    finish(state)
    damage(state, 1)
    (task,) = receive(state, [("client:1", 1)], drop=True)
    forgotten = sum(len(held(state, 1, label)) for label in (2, 3))
    assert task.counts == {1: len(held(state, 1)) - forgotten}
    left = sum(len(held(state, client)) for client in range(CLIENTS))
    counted = sum(sum(task.counts.values()) for task in tasks_of(state.journal))
    others = sum(len(held(state, client)) for client in (0, 2, 3)) - len(held(state, 0, 2))
    assert left - counted == others


def test_not_everybody_can_be_dropped(tmp_path):
    state = learned(tmp_path / "state", clients=2)
    message = refusal(state, [("client:0", 0), ("client:1", 1)], drop=True)
    assert "something to learn from" in message


def test_what_was_asked_in_the_same_words_is_done_unless_it_is_asked_anew(tmp_path):
    state = learned(tmp_path / "state")
    half = ("samples:0.5@class:2", 1)
    (first,) = receive(state, [half])
    finish(state)
    events = len(state.journal.events)
    with pytest.raises(AlreadyForgottenError, match="is done"):
        receive(state, [half])
    assert len(state.journal.events) == events
    (second,) = receive(state, [half], again=True)
    left = len(held(state, 1, 2)) - first.counts[1]
    assert second.counts == {1: round(left / 2)}


def test_a_file_of_ids_that_has_grown_is_not_taken_for_what_was_asked(tmp_path):
    state = learned(tmp_path / "state")
    file = tmp_path / "ids.txt"
    known, other = held(state, 1)[:3], held(state, 2)[:1]
    file.write_text("\n".join(map(str, known)))
    receive(state, [(f"ids:{file}", 0)])
    finish(state)
    with pytest.raises(AlreadyForgottenError):
        receive(state, [(f"ids:{file}", 0)])
    for more in (other, [10**9]):
        file.write_text("\n".join(map(str, [*known, *more])))
        assert "which no client holds" in refusal(state, [(f"ids:{file}", 0)])
    file.write_text("\n".join(map(str, other)))
    (task,) = receive(state, [(f"ids:{file}", 0)])
    assert task.counts == {2: 1}


def test_a_client_that_has_forgotten_everything_can_still_be_dropped(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("client:1", 1)])
    finish(state)
    (task,) = receive(state, [("client:1", 1)], drop=True)
    assert task.counts == {1: 0}
    finish(state)
    with pytest.raises(AlreadyForgottenError):
        receive(state, [("client:1", 1)], drop=True)
    with pytest.raises(UserError, match="a client from 0 to 3"):
        receive(state, [("client:4", 4)], drop=True)


def test_what_cannot_be_finished_is_taken_back_and_others_go_on(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 1), ("class:3", 2)])
    state.journal.append("started", task=1, attempt="b", environment={})
    assert "--withdraw" in refusal(state, [("class:4", 3)])
    assert withdraw(state) == ["class:2; class:3"]
    assert [task.number for task in tasks_of(state.journal)] == [0]
    # No number is given twice: a client may have noted something under it.
    assert [task.number for task in receive(state, [("class:2", 1)])] == [2]
    finish(state)
    with pytest.raises(UserError, match="nothing unfinished"):
        withdraw(state)


def test_what_is_prepared_is_not_taken_back(tmp_path):
    state = learned(tmp_path / "state")
    receive(state, [("class:2", 1)])
    state.journal.append("prepared", task=1, attempt="b", changed=[1])
    with pytest.raises(UserError, match="class:2"):
        withdraw(state)
    assert [task.number for task in tasks_of(state.journal)] == [0, 1]
