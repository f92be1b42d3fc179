"""Taking requests that come weeks after learning: checked against what is kept, and written down.

Once a request is in the journal it is not lost: whatever happens, the next command finishes it or
takes it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from split_unlearning.clients.forgotten import ForgottenSamples
from split_unlearning.foundations.errors import StateError, UserError, refuse
from split_unlearning.simulations.data.dataset import Samples
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.preparation import resolve
from split_unlearning.simulations.state.agenda import (
    ReceivedRequest,
    Task,
    check_belongs,
    dropped,
    kept_by,
    next_number,
    received,
    tasks_of,
)
from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.strategies.registry import ways_to
from split_unlearning.unlearning.asking import EVERYBODY, Asking
from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.request import Request, parse_requests
from split_unlearning.unlearning.tensor_store import TensorStore


class AlreadyForgottenError(Exception):
    """What is asked was asked before, and is done; says when."""


def receive(
    state: StateDir,
    forget: Sequence[tuple[str, Asking]],
    drop: bool = False,
    again: bool = False,
    absent: Collection[int] = (),
) -> list[Task]:
    """Write requests down, and return the tasks that are not finished.

    Requests of different clients become one task: the server trains once for all of them. Those of
    one client are done one after the other. A request that stands there unfinished is not written
    down again.

    This process has locked the state-dir, which holds a state. `forget` has each request, and whose
    samples it means by ``class:`` and ``samples:``; none to finish what was begun. With `drop`
    these clients are gone: all they ever gave is forgotten without them. With `again` a request of
    the same words is another request, about what is left: a share of it, for instance; else what
    was asked before is done. Clients that are `absent` ask for nothing; the others do without them.

    Raises
    ------
    UserError
        If there is nothing to do, or a request is not possible.
    StateError
        If what is kept is not of one piece.
    AlreadyForgottenError
        If what is asked was asked before, and is done.
    """
    tasks = tasks_of(state.journal)
    check_belongs(tasks, state.server.attempt, str(state.path))
    wanted = [
        (request, client) for text, client in forget for request in parse_requests(text, client)
    ]
    unfinished = [task for task in tasks if not task.measured]
    if unfinished:
        _check_continues(state, tasks, wanted, drop, absent)
        return unfinished
    if not wanted:
        raise UserError(
            f"{state.path} has nothing left to do; --forget says what to forget, for instance "
            "class:2"
        )
    assert state.config is not None
    if drop and not state.config.protocol().can_drop(type(state.config.method())):
        allowed = ways_to(lambda strategy, method: strategy.can_drop(method))
        raise refuse("--drop-client", state.config.strategy, allowed)
    resolved = _resolved(state, tasks, wanted, drop, again, absent)
    away = _checked_absent(state, tasks, resolved, absent)
    for number, asked in enumerate(_apart(resolved), start=next_number(state.journal)):
        state.journal.append("received", **received(number, asked, drop, away))
    return tasks_of(state.journal)[len(tasks) :]


def check_done(state: StateDir, tasks: Sequence[Task]) -> None:
    """Refuse to call tasks done that the journal does not call done.

    Between the moment a request is received and the moment a run carries it out, another process
    can take it back.

    Raises
    ------
    StateError
        If one of them is withdrawn or unfinished.
    """
    numbers = {task.number: task for task in tasks_of(state.journal)}
    for task in tasks:
        if task.number not in numbers:
            raise StateError(
                f"{task.text!r} is not forgotten: another process took the request back; "
                "allowed: to ask again"
            )
        if not numbers[task.number].measured:
            raise StateError(
                f"{task.text!r} is not forgotten yet, although the run ended; "
                "the same command finishes it"
            )


def withdraw(state: StateDir) -> list[str]:
    """Take back what was asked and cannot be finished; return the texts of these requests.

    What has been changed for it stands beside the state, and goes with the next attempt. The
    state-dir is locked by this process.

    Raises
    ------
    UserError
        If nothing is unfinished, or it has gone too far.
    """
    unfinished = [task for task in tasks_of(state.journal) if not task.measured]
    taken = [task for task in unfinished if task.asked and task.prepared is None]
    if not taken:
        allowed = "what was asked for and has not been prepared"
        left = "; ".join(task.text or "learning" for task in unfinished) or "nothing unfinished"
        raise refuse("--withdraw", left, allowed)
    for task in taken:
        state.journal.append("withdrawn", task=task.number)
    return [task.text for task in taken]


def _checked_absent(
    state: StateDir,
    tasks: Sequence[Task],
    asked: Sequence[ReceivedRequest],
    absent: Collection[int],
) -> list[int]:
    """Return the clients that are away, in order; refuse those that cannot be done without."""
    if not absent:
        return []
    assert state.config is not None
    strategy, method = state.config.protocol(), type(state.config.method())
    if not strategy.can_miss_clients(method):
        alone = strategy.needed([0, 1], [0]) == [0]
        ways = ways_to(lambda strategy, method: strategy.can_miss_clients(method))
        allowed = "none: only who asks is needed" if alone else ways
        raise refuse("--absent", min(absent), allowed)
    asking = {client for request in asked for client in request.counts}
    here = set(range(state.num_clients)) - dropped(tasks) - asking
    for client in sorted(absent):
        if client not in here:
            allowed = f"a client that asks for nothing, of {', '.join(map(str, sorted(here)))}"
            raise refuse("--absent", client, allowed)
    return sorted(set(absent))


def _check_continues(
    state: StateDir,
    tasks: Sequence[Task],
    wanted: Sequence[tuple[Request, Asking]],
    drop: bool,
    absent: Collection[int],
) -> None:
    """Refuse another request while one is not finished; the same one again finishes it."""
    unfinished = [task for task in tasks if not task.measured]
    asked = _named(unfinished)
    if not all(task.asked for task in unfinished):
        raise UserError(
            f"{state.path} has not finished learning; the same command that began it finishes it"
        )
    named = {(request.text, client) for request, client in wanted}
    # Of the same command some may be done already.
    same = set(asked) <= named <= set(_named(tasks))
    same = same and drop == unfinished[0].drop
    if (wanted and not same) or (absent and {*absent} != {*unfinished[0].absent}):
        raise UserError(
            f"{'; '.join(text for text, _ in asked)!r} is not finished; first finish it with "
            f"split-unlearning unlearn {state.path}, or take it back with --withdraw"
        )


def _named(tasks: Sequence[Task]) -> list[tuple[str, Asking]]:
    return [(request.text, request.forget_client) for task in tasks for request in task.asked]


def _resolved(
    state: StateDir,
    tasks: Sequence[Task],
    wanted: Sequence[tuple[Request, Asking]],
    drop: bool,
    again: bool,
    absent: Collection[int],
) -> list[ReceivedRequest]:
    """Work out which samples requests mean, of those that clients still hold."""
    config = state.config
    assert config is not None
    known = state.deal()
    dataset, plan = known.dataset, known.plan
    gone = dropped(tasks)
    held = {client: ids[: 0 if client in gone else None] for client, ids in enumerate(plan.train)}
    before = Counter[int]()
    for task in tasks:
        before.update(task.counts)
    kept = kept_by(tasks)
    # A client that is gone has nothing left to read.
    read = set(gone)
    asked: list[ReceivedRequest] = []
    done: list[str] = []
    for named, client in wanted:
        request = named.loaded()
        if drop:
            assert isinstance(client, int)
            # A dropped client's folder is not read: all that is left of it is meant.
            if client >= state.num_clients:
                raise refuse("--client", client, f"a client from 0 to {state.num_clients - 1}")
            if client in gone:
                done.append(f"{request.text} was dropped, and is done")
            else:
                counts = {client: len(plan.train[client]) - before[client]}
                asked.append(ReceivedRequest(request.text, client, None, False, counts))
            continue
        # Only the folders of clients that the request may mean are read.
        meant = {
            owner for owner, ids in held.items() if _may_mean(request, owner, ids, dataset)
        } - read
        for owner in meant:
            held[owner] = _still_held(state, owner, held[owner], kept.get(owner, ""))
        read |= meant
        when = [task.received for task in tasks if (request.text, client) in _named([task])]
        if when and not again and not _means_more(request, plan, held):
            done.append(f"{request.text} of {_who(client)} was asked for at {when[0]}, and is done")
            continue
        forgetting = resolve(request, held, dataset, config.training_seed)
        for owner, ids in forgetting.samples.items():
            held[owner] = np.setdiff1d(held[owner], ids)
        asked.append(ReceivedRequest.of(forgetting, client))
    if done and asked:
        raise UserError(f"{done[0]}; ask for the others without it")
    if done:
        raise AlreadyForgottenError("; ".join(done))
    left = Counter(dict(enumerate(map(len, plan.train))))
    for counts in (before, *(request.counts for request in asked)):
        left.subtract(counts)
    if sum(count for client, count in left.items() if client not in absent) < 2:
        texts = "; ".join(request.text for request, _ in wanted)
        raise refuse("--forget", texts, "a request that leaves something to learn from")
    return asked


def _means_more(request: Request, plan: Plan, held: Mapping[int, Ids]) -> bool:
    """Return whether a request names samples that an earlier one of the same words did not.

    A file of ids may have changed; what other requests mean is what it was.
    """
    ids = np.array(request.ids, dtype=np.int64)
    dealt = np.isin(ids, np.concatenate(plan.train)).all()
    return not dealt or bool(np.isin(ids, np.concatenate([*held.values()])).any())


def _who(client: Asking) -> str:
    if client == EVERYBODY:
        return "everybody"
    return f"client {client}" if isinstance(client, int) else f"clients {client}"


def _may_mean(request: Request, client: int, ids: Ids, dataset: Samples) -> bool:
    if request.client is not None:
        return request.client == client
    if not request.ids:
        label = request.label_index(dataset.class_names)
        holds = bool((dataset.y_train[ids] == label).any())
        return client in request.clients if request.clients else holds
    return bool(np.isin(ids, np.array(request.ids, dtype=np.int64)).any())


def _still_held(state: StateDir, client: int, ids: Ids, attempt: str) -> Ids:
    folder = state.client(client)
    folder.check_attempt(attempt)
    return np.setdiff1d(ids, ForgottenSamples(TensorStore(folder)).among(ids))


def _apart(asked: Sequence[ReceivedRequest]) -> list[list[ReceivedRequest]]:
    """Group requests, in order, such that no client is in a group twice."""
    groups: list[list[ReceivedRequest]] = []
    for request in asked:
        busy = {client for other in groups[-1] for client in other.counts} if groups else set()
        if not groups or busy & set(request.counts):
            groups.append([])
        groups[-1].append(request)
    return groups
