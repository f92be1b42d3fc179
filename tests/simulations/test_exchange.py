"""What comes back from Flower's nodes, and what is said when nothing does."""

import time
from types import SimpleNamespace

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from split_unlearning.simulations.session.exchange import Trouble, exchange

RAISED = (
    "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::ClientAppActor.run()"
    '\x1b[39m (pid=1, ip=192.0.2.2)\n  File "/app/client.py", line 14, in train\n'
    "RuntimeError: out of memory\n\nflwr.clientapp.client_app.ClientAppException: \n"
    "Exception ClientAppException occurred. Message: out of\n memory'>"
)
DIED = (
    "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly before finishing this "
    "task.\n\tclass_name: ClientAppActor\n\tactor_id: 7925'>"
)


class Grid:
    """Nodes that answer as they are told, after so many looks."""

    def __init__(self, **answers):
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.answers = answers
        self.pulls = 0

    def push_messages(self, messages):
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"n{message.metadata.dst_node_id}"
        self.pushed = {message.metadata.message_id: message for message in messages}
        return [name for name in self.pushed if self.answers[name] != "not taken"]

    def pull_messages(self, message_ids):
        self.pulls += 1
        replies = []
        for name in message_ids:
            looks, content = self.answers[name]
            if self.pulls > looks:
                replies.append(Message(content, reply_to=self.pushed[name]))
        return replies


def ask(grid, timeout=60.0):
    nodes = [int(name.removeprefix("n")) for name in grid.answers]
    return exchange(grid, [Message(RecordDict(), node, "train") for node in nodes], timeout)


def test_each_node_gets_its_own_answer_however_late_it_comes():
    contents = {name: RecordDict() for name in ("n1", "n2", "n3")}
    grid = Grid(n1=(3, contents["n1"]), n2=(0, contents["n2"]), n3=(5, contents["n3"]))
    replies = ask(grid)
    assert replies.keys() == {1, 2, 3}
    assert all(replies[node] is contents[f"n{node}"] for node in replies)
    assert grid.pulls == 6


def test_nobody_is_waited_for_longer_than_the_timeout():
    grid = Grid(n1=(0, RecordDict()), n2=(10**9, None))
    started = time.monotonic()
    replies = ask(grid, timeout=0.25)
    assert time.monotonic() - started >= 0.25
    assert isinstance(replies[1], RecordDict)
    assert replies[2] == Trouble("no answer within 0.25 seconds (round-timeout)")
    # Looking grows rarer: not every 2 milliseconds.
    assert grid.pulls < 80


def test_who_waits_for_many_looks_a_tenth_of_the_time_and_for_the_last_at_once(monkeypatch):
    now, looked, slept = [0.0], [], []

    class Slow(Grid):
        """Looking takes 10 milliseconds."""

        def pull_messages(self, message_ids):
            looked.append(len(message_ids))
            now[0] += 0.01
            return super().pull_messages(message_ids)

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("split_unlearning.simulations.session.exchange.time", clock)
    ask(Slow(n1=(1, RecordDict()), n2=(3, RecordDict()), n3=(4, RecordDict())))
    assert looked == [3, 3, 2, 2, 1]
    assert slept[:3] == pytest.approx([0.1] * 3)
    assert slept[3] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("code", "reason", "trouble"),
    [
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, RAISED, Trouble("out of memory")),
        (
            ErrorCode.UNKNOWN,
            DIED,
            Trouble(
                "Flower lost its worker: <class 'ray.exceptions.ActorDiedError'>:<'The actor died "
                "unexpectedly before finishing this task.",
                fatal=True,
            ),
        ),
        (ErrorCode.NODE_UNAVAILABLE, "gone", Trouble("gone")),
    ],
)
def test_an_error_is_told_in_one_line(code, reason, trouble):
    assert ask(Grid(n1=(0, Error(code=code, reason=reason)))) == {1: trouble}


def test_a_node_that_takes_no_message_is_not_waited_for():
    replies = ask(Grid(n1="not taken", n2=(0, RecordDict())))
    assert replies[1] == Trouble("Flower takes no message for its node")
    assert isinstance(replies[2], RecordDict)


def test_nothing_is_asked_of_nobody():
    assert ask(Grid()) == {}
