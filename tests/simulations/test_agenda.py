"""What a run has to do, as the journal tells it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.preparation import Forgetting, prepare
from split_unlearning.simulations.state.agenda import (
    ReceivedRequest,
    Task,
    dropped,
    first_events,
    received,
    tasks_of,
)
from split_unlearning.unlearning.journal import Journal
from split_unlearning.unlearning.request import Request

ASKED = st.builds(
    ReceivedRequest,
    text=st.text(max_size=8),
    forget_client=st.integers(0, 9),
    label=st.none() | st.integers(0, 9),
    single=st.booleans(),
    counts=st.dictionaries(st.integers(0, 9), st.integers(1, 99), min_size=1, max_size=3),
)


def asked(client, count=1):
    return ReceivedRequest(f"client:{client}", client, None, False, {client: count})


def journal_of(*requests, drop=False):
    """Return a journal in which learning and some requests were received."""
    journal = Journal()
    journal.append("received", **received(0, ()))
    for number, one in enumerate(requests, start=1):
        journal.append("received", **received(number, one, drop))
    return journal


@pytest.mark.parametrize(
    ("request_", "label", "covered"),
    [
        (Request(text="", client=1, label="2"), 2, {(1, 2)}),
        (Request(text="", client=1, label="2", share=0.5), 2, {(1, 2)}),
        (Request(text="", client=1), None, {(1, 0), (1, 1), (1, 2)}),
        (Request(text="", ids=(4, 5)), None, set()),
    ],
)
def test_what_stands_for_the_forgotten_in_the_test_split(request_, label, covered):
    one = ReceivedRequest.of(Forgetting(request_, {1: np.array([4, 5])}, label), 1)
    other = asked(0)
    cells = {(client, label) for client in range(3) for label in range(3)}
    assert {cell for cell in cells if one.covers(*cell)} == covered
    # The same after it was written down, and together with another.
    again = ReceivedRequest.from_field(json.loads(json.dumps(one.to_field())))
    assert {cell for cell in cells if Task(1, (again,)).covers(*cell)} == covered
    both = {cell for cell in cells if Task(1, (other, one)).covers(*cell)}
    assert both == covered | {(0, label) for label in range(3)}
    assert not any(Task(0).covers(*cell) for cell in cells)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.lists(ASKED, min_size=1, max_size=2), st.booleans()), max_size=3))
def test_tasks_survive_the_journal(tmp_path_factory, wanted):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    journal.append("received", **received(0, ()))
    for number, (requests, drop) in enumerate(wanted, start=1):
        journal.append("received", **received(number, requests, drop))
    tasks = tasks_of(Journal(path))
    assert [(task.number, task.asked, task.drop) for task in tasks] == [
        (0, (), False),
        *(
            (number, tuple(requests), drop)
            for number, (requests, drop) in enumerate(wanted, start=1)
        ),
    ]
    assert {task.phase for task in tasks[1:]} <= {"unlearn"}
    assert tasks[0].phase == "learn"
    assert all(task.received for task in tasks)


def test_an_empty_journal_has_no_task():
    assert tasks_of(Journal()) == []


def test_how_far_a_task_has_come():
    journal = journal_of([asked(0)])

    def progress():
        task = tasks_of(journal)[1]
        prepared = task.prepared and task.prepared["cost"]
        return task.attempt, prepared, task.committed, task.measured

    assert progress() == ("", None, False, False)
    journal.append("started", task=1, attempt="a1", environment={})
    assert progress() == ("a1", None, False, False)
    # It was interrupted, and began again.
    journal.append("started", task=1, attempt="b2", environment={})
    journal.append("prepared", task=1, attempt="b2", cost=3)
    assert progress() == ("b2", 3, False, False)
    journal.append("committed", task=1)
    assert progress() == ("b2", 3, True, False)
    journal.append("measured", task=1)
    assert progress() == ("b2", 3, True, True)
    # Of another task nothing is known, and what is not known is left alone.
    journal.append("noted", task=1)
    assert progress() == ("b2", 3, True, True)
    assert tasks_of(journal)[0].prepared is None


def test_a_run_s_own_requests_are_received_one_by_one_and_counted_from_1():
    config = RunConfig.from_mapping({"forget": "class:2;client:1", "forget-client": 0})
    prepared = prepare(config, 3)
    events = first_events(prepared.forgettings, 0)
    assert [event["task"] for event in events] == [0, 1, 2]
    assert [len(event["requests"]) for event in events] == [0, 1, 1]
    journal = Journal()
    for event in events:
        journal.append("received", **event)
    learn, first, second = tasks_of(journal)
    assert (learn.text, learn.counts) == ("", {})
    held = [len(ids) for ids in prepared.plan.train]
    assert first.text == "class:2"
    assert first.counts == {0: int((prepared.dataset.y_train == 2).sum())}
    assert (second.text, second.counts) == ("client:1", {1: held[1]})
    assert first.requests(prepared.plan)[0].number == 1
    assert second.requests(prepared.plan)[1].number == 2


def test_no_id_of_a_sample_is_written_down(tmp_path):
    ids = [1013, 1117, 1289, 1301, 1427]
    (tmp_path / "who").write_text("\n".join(map(str, ids)))
    prepared = prepare(RunConfig.from_mapping({"forget": f"ids:{tmp_path / 'who'}"}), 3)
    written = json.dumps(first_events(prepared.forgettings, 0)[1])
    assert not [one for one in ids if str(one) in written.replace(str(tmp_path), "")]
    assert sum(json.loads(written)["requests"][0]["samples"].values()) == len(ids)


def test_each_client_is_told_of_its_own_samples(tmp_path):
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(map(str, range(0, 1400, 100))))
    config = RunConfig.from_mapping({"forget": f"ids:{file}"})
    prepared = prepare(config, 4)
    (forgetting,) = prepared.forgettings
    task = Task(3, (ReceivedRequest.of(forgetting, 0),))
    told = task.requests(prepared.plan)
    assert {client: list(one.ids) for client, one in told.items()} == {
        client: ids.tolist() for client, ids in forgetting.samples.items()
    }
    assert {one.number for one in told.values()} == {3}
    assert not any(str(tmp_path) in one.to_field() for one in told.values())
    file.unlink()
    with pytest.raises(UserError, match="a file of sample ids") as refused:
        task.requests(prepared.plan)
    assert "\n" not in str(refused.value)


def test_requests_of_several_clients_are_one_task_with_one_number():
    prepared = prepare(RunConfig.from_mapping({"forget": "", "distribution": "iid"}), 3)
    task = Task(
        2,
        (
            ReceivedRequest("class:2", 2, 2, False, {2: 4}),
            ReceivedRequest("samples:0.5@class:3", 0, 3, False, {0: 7}),
        ),
    )
    told = task.requests(prepared.plan)
    assert {client: (one.client, one.label, one.share) for client, one in told.items()} == {
        2: (2, "2", 1.0),
        0: (0, "3", 0.5),
    }
    assert {one.number for one in told.values()} == {2}
    assert task.counts == {2: 4, 0: 7}
    assert task.text == "class:2; samples:0.5@class:3"


def test_clients_are_gone_once_their_dropping_cannot_be_taken_back():
    journal = journal_of([asked(1), asked(3)], drop=True)
    journal.append("received", **received(2, [asked(2)]))
    assert dropped(tasks_of(journal)) == set()
    for task in (1, 2):
        journal.append("started", task=task, attempt="a", environment={})
        assert dropped(tasks_of(journal)) == (set() if task == 1 else {1, 3})
        journal.append("prepared", task=task, attempt="a")
        assert dropped(tasks_of(journal)) == {1, 3}
