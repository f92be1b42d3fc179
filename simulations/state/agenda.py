"""What a run has to do, in order, as the journal says: learn, and forget what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from split_unlearning.foundations.errors import StateError
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.preparation import Forgetting
from split_unlearning.unlearning.asking import Asking
from split_unlearning.unlearning.journal import Journal
from split_unlearning.unlearning.request import Request, parse_requests


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it was received; `counts` are the samples that it means, by client.

    `forget_client` is whose samples ``class:`` and ``samples:`` mean. The label is None
    for a request about a client or about ids. A request for a `single` sample, or several, has no
    counterpart in the test split.
    """

    text: str
    forget_client: Asking
    label: int | None
    single: bool
    counts: dict[int, int]

    @classmethod
    def of(cls, forgetting: Forgetting, forget_client: Asking) -> ReceivedRequest:
        """Return a request that was resolved against who holds what."""
        counts = {client: len(ids) for client, ids in forgetting.samples.items()}
        request = forgetting.request
        return cls(request.text, forget_client, forgetting.label, bool(request.ids), counts)

    def to_field(self) -> dict[str, Any]:
        """Return what the journal writes down; no sample's id is in it."""
        return {
            "text": self.text,
            "forget-client": self.forget_client,
            "label": self.label,
            "single": self.single,
            "samples": {str(client): count for client, count in self.counts.items()},
        }

    @classmethod
    def from_field(cls, field: dict[str, Any]) -> ReceivedRequest:
        """Read what `to_field` wrote."""
        counts = {int(client): count for client, count in field["samples"].items()}
        return cls(field["text"], field["forget-client"], field["label"], field["single"], counts)

    def covers(self, client: int, label: int) -> bool:
        """Return whether a client's test samples of a label stand for what is forgotten.

        They do if it is the forgotten label, or all of the client's samples are forgotten.
        """
        if self.single or client not in self.counts:
            return False
        return self.label is None or self.label == label


@dataclass(frozen=True)
class Task:
    """One thing to do: learn, if nothing is asked, or forget what is asked, all at once.

    `number` is its place in the journal, from 0. The requests are of different clients. With `drop`
    these clients are gone, and all that they ever gave is forgotten without them; clients that are
    `absent` are not waited for. `attempt` names the last attempt at the task, if there was one and
    a state-dir keeps it. `prepared` is the event that says that all it changes is on disk: from
    then on it is never taken back. It is `committed` when it is done, and `measured` when it is
    evaluated as well.
    """

    number: int
    asked: tuple[ReceivedRequest, ...] = ()
    drop: bool = False
    absent: tuple[int, ...] = ()
    received: str = ""
    attempt: str = ""
    prepared: dict[str, Any] | None = None
    committed: bool = False
    measured: bool = False

    @property
    def phase(self) -> str:
        """The phase under which the ledger counts it."""
        return "unlearn" if self.asked else "learn"

    @property
    def text(self) -> str:
        """The requests, as their users wrote them."""
        return "; ".join(request.text for request in self.asked)

    @property
    def counts(self) -> dict[int, int]:
        """How many samples are to be forgotten, by client."""
        return {
            client: request.counts[client]
            for request in self.asked
            for client in sorted(request.counts)
        }

    def requests(self, plan: Plan) -> dict[int, Request]:
        """Return the request that each client with some of these samples receives.

        Raises
        ------
        UserError
            If a file of sample ids that a request names cannot be read any more.
        """
        meant = {}
        for received in self.asked:
            parsed = parse_requests(received.text, received.forget_client)[0]
            request = replace(parsed.loaded(), number=self.number)
            for client in received.counts:
                ids = plan.train[client]
                if request.ids:
                    ids = np.intersect1d(ids, np.array(request.ids, dtype=np.int64))
                meant[client] = request.meant_for(client, ids)
        return meant

    def covers(self, client: int, label: int) -> bool:
        """Return whether one of the requests does; see `ReceivedRequest.covers`."""
        return any(request.covers(client, label) for request in self.asked)


def first_events(forgettings: Sequence[Forgetting], forget_client: Asking) -> list[dict[str, Any]]:
    """Return the fields of the events that a journal begins with: learn, then each request."""
    asked = [(), *((ReceivedRequest.of(each, forget_client),) for each in forgettings)]
    return [received(number, requests) for number, requests in enumerate(asked)]


def received(
    number: int, asked: Sequence[ReceivedRequest], drop: bool = False, absent: Sequence[int] = ()
) -> dict[str, Any]:
    """Return the fields of the event that says that something was asked for."""
    requests = [request.to_field() for request in asked]
    return {"task": number, "requests": requests, "drop": drop, "absent": [*absent]}


def tasks_of(journal: Journal) -> list[Task]:
    """Return everything that was ever asked for and not withdrawn, and how far it has come."""
    tasks: dict[int, Task] = {}
    for event in journal.events:
        kind = event["event"]
        if kind == "received":
            asked = tuple(ReceivedRequest.from_field(field) for field in event["requests"])
            # A journal of before clients could be away does not name any.
            absent = tuple(event.get("absent", ()))
            tasks[event["task"]] = Task(event["task"], asked, event["drop"], absent, event["time"])
            continue
        if kind == "withdrawn":
            del tasks[event["task"]]
            continue
        changes: dict[str, dict[str, Any]] = {
            "started": {"attempt": event.get("attempt", ""), "prepared": None},
            "prepared": {"prepared": event},
            "committed": {"committed": True},
            "measured": {"measured": True},
        }
        if kind in changes:
            tasks[event["task"]] = replace(tasks[event["task"]], **changes[kind])
    return [tasks[number] for number in sorted(tasks)]


def next_number(journal: Journal) -> int:
    """Return the number of the next task; none is given twice."""
    return 1 + max((event["task"] for event in journal.events), default=-1)


def check_belongs(tasks: Sequence[Task], attempt: str, place: str) -> None:
    """Check that the server's part of a state-dir is as new as its journal.

    `attempt` is the one that was committed last in the server's part; `place` is the state-dir.

    Raises
    ------
    StateError
        If one of them is older than the other.
    """
    prepared = [task for task in tasks if task.prepared is not None]
    attempts = [task.attempt for task in prepared if task.committed][-1:] or [""]
    # What was prepared may be committed here, and the journal not know of it.
    attempts += [task.attempt for task in prepared if not task.committed]
    if attempt not in attempts:
        raise StateError(
            f"the journal and the server's part of {place} do not belong together: one of them "
            "is older"
        )


def kept_by(tasks: Sequence[Task]) -> dict[int, str]:
    """Return the attempt that each client committed last."""
    return {
        client: task.attempt
        for task in tasks
        if task.prepared is not None and task.committed
        for client in task.prepared["changed"]
    }


def dropped(tasks: Sequence[Task]) -> set[int]:
    """Return the clients all of whose samples were dropped without their help."""
    return {client for task in tasks if task.drop and task.prepared for client in task.counts}
