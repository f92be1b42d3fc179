"""One run: task by task, ask the clients, train the server, keep what was changed, take it down."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from split_unlearning.evaluation.outputs import Outputs
from split_unlearning.reporting.result import Relearning, Result
from split_unlearning.simulations import console
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.out_folder import OutFolder
from split_unlearning.simulations.preparation import Preparation
from split_unlearning.simulations.session.audit import outputs_of
from split_unlearning.simulations.session.conversation import Conversation
from split_unlearning.simulations.session.kept_models import KeptModel
from split_unlearning.simulations.session.relearning import relearn_time
from split_unlearning.simulations.session.result import ResultBuilder, environment
from split_unlearning.simulations.state.agenda import (
    Task,
    check_belongs,
    dropped,
    kept_by,
    tasks_of,
)
from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.strategies.audit import audit
from split_unlearning.strategies.base import SplitStrategy, StrategySetting
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.strategies.script import Script
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.segment import ServerSegment
from split_unlearning.strategies.telling import tell_models
from split_unlearning.transport.ledger import Ledger
from split_unlearning.transport.message import Message
from split_unlearning.unlearning.journal import Journal


class Session:
    """A run's strategy and all that it works with.

    The conversation with the clients counts in the ledger. The journal says what is to be done and
    how far it has come; the state-dir, if there is one, keeps what is learned for later runs.
    """

    def __init__(
        self,
        prepared: Preparation,
        server: ServerSegment,
        conversation: Conversation,
        ledger: Ledger,
        journal: Journal,
        state: StateDir | None,
    ) -> None:
        self.prepared, self.server = prepared, server
        self._conversation, self._journal, self._state = conversation, journal, state
        self._audits = prepared.config.own.flag("audit")
        self._keeps_models = prepared.config.own.flag("keep-models")
        tasks = tasks_of(journal)
        config, total = prepared.config, prepared.plan.num_clients
        gone = dropped(tasks)
        self.strategy = make_strategy(
            prepared,
            server,
            clients=[client for client in range(total) if client not in gone],
            present=needed_for(config, total, tasks) if state else None,
        )
        if state is not None:
            self.strategy.addressing = {"clients": total}
            self._take_up(tasks)
        phases = state.phases() if state else []
        self._out = OutFolder(Path(config.out)) if config.out else None
        self._outputs: dict[int, Outputs] = {}
        self._client_models: dict[int, Message] = {}
        self._builder = ResultBuilder(prepared, self.strategy, conversation, ledger, tasks, phases)

    def _take_up(self, tasks: Sequence[Task]) -> None:
        """Go on from what was kept, if it is of one piece."""
        assert self._state is not None
        check_belongs(tasks, self.server.call(KeptState.attempt), str(self._state.path))
        for task in tasks:
            if task.prepared is None:
                continue
            digests = task.prepared["digests"]["clients"]
            self.strategy.client_digests = {int(client): digests[client] for client in digests}

    def run(self) -> Result:
        """Do everything that is still to be done, and return what is in ``result.json``.

        Raises
        ------
        ClientFailureError
            If a client does not answer, or did not forget what was meant.
        StateError
            If what was changed cannot be kept; the state is then as it was before.
        """
        for task in tasks_of(self._journal):
            if not task.measured:
                self._do(task)
        return self._builder.result()

    def _do(self, task: Task) -> None:
        """Do one task; what an earlier run has done of it is not done again."""
        config, strategy = self.prepared.config, self.strategy
        what = f"forget {task.text} of {sorted(task.counts)}" if task.asked else "learn"
        console.progress(f"{config.strategy}: {what} with {len(strategy.clients)} clients")
        if task.prepared is None:
            attempt = secrets.token_hex(8) if self._state else ""
            event = self._prepare(task, attempt)
        else:
            attempt, event = task.attempt, task.prepared
        if not task.committed:
            self._commit(task, attempt, event["changed"])
            self._journal.append("committed", task=task.number)
        if task.drop:
            strategy.clients = [client for client in strategy.clients if client not in task.counts]
            strategy.present = [client for client in strategy.present if client not in task.counts]
        strategy.groups = self._builder.groups(task)
        self._conversation.hold(strategy, self._measure(), "evaluate")
        relearned = self._look_at_outputs(task) if self._audits else None
        if self._keeps_models and self._out:
            weights = self.server.call(ServerModel.state)
            labels = self.server.call(ServerModel.labels)
            KeptModel.of(weights, labels, self._client_models).write(self._out.models, task.number)
        self._builder.note_phase(task, event["cost"], relearned)
        result = self._builder.result()
        if self._out:
            self._out.write_result(result)
            if task.number == tasks_of(self._journal)[-1].number:
                self._out.complete()
        if self._state:
            self._state.write_result(result)
        self._journal.append("measured", task=task.number)

    def _look_at_outputs(self, task: Task) -> Relearning | None:
        """Write outputs down; return how quickly what was forgotten is relearned."""
        before = self._outputs.get(max(self._outputs, default=-1))
        after = self._outputs[task.number] = outputs_of(self.strategy.audited)
        if self._out:
            self._out.write_outputs(self._outputs)
        if before is None:
            return None
        most = self.strategy.training.server_epochs
        return relearn_time(self.strategy, before, after, task.number, most)

    def _measure(self) -> Script:
        """Score; audit, and ask for the clients' segments, where the run is to do that."""
        yield from self.strategy.score()
        if self._audits:
            yield from audit(self.strategy)
        if self._keeps_models:
            self._client_models = yield from tell_models(self.strategy)

    def _prepare(self, task: Task, attempt: str) -> dict[str, Any]:
        """Learn or forget, up to where all that it changes is on disk, beside what it replaces."""
        strategy, server = self.strategy, self.server
        self._journal.append("started", task=task.number, attempt=attempt)
        strategy.groups = self._builder.groups(task)
        if self._state:
            server.call(KeptState.begin, attempt)
            strategy.addressing["attempt"] = attempt
            strategy.kept_by = kept_by(tasks_of(self._journal))
        self._conversation.hold(strategy, self._script(task), task.phase)
        if not task.drop:
            _check_left_out(strategy, task)
        cost = self._builder.take_cost()
        if self._state:
            server.call(KeptState.seal)
        return self._journal.append(
            "prepared",
            task=task.number,
            attempt=attempt,
            forgotten={
                client: _hashes(joined) for client, joined in strategy.heard.forgotten.items()
            },
            redone=strategy.redone,
            digests={"server": server.call(ServerModel.digest), "clients": strategy.client_digests},
            changed=sorted(strategy.heard.answered),
            environment=environment(
                self.prepared.config, server.call(ServerModel.device_name), strategy.client_devices
            ).model_dump(mode="json"),
            cost=cost,
        )

    def _script(self, task: Task) -> Script:
        if not task.asked:
            return self.strategy.learn()
        if task.drop:
            return self.strategy.drop(task.counts)
        return self.strategy.unlearn(task.requests(self.prepared.plan))

    def _commit(self, task: Task, attempt: str, changed: Sequence[int]) -> None:
        """Make what was changed the state, on every client that changed and on the server."""
        if self._state is None:
            return
        self.strategy.addressing.pop("attempt", None)
        self._conversation.hold(self.strategy, self.strategy.commit(changed, attempt), task.phase)
        self.server.call(KeptState.commit, attempt)


def make_strategy(
    prepared: Preparation,
    server: ServerSegment,
    clients: Sequence[int],
    present: Sequence[int] | None = None,
) -> SplitStrategy:
    """Return the strategy that a run config names, ready to learn.

    `clients` take part; those that are `present` can be reached, by default all.
    """
    config = prepared.config
    return config.protocol()(
        StrategySetting.of(
            config.own,
            clients=clients,
            server=server,
            training=config.training(),
            method=config.method(),
            num_clients=prepared.plan.num_clients,
            options=config.all_options,
            present=present,
            report=console.Ticker(),
        )
    )


def needed_for(config: RunConfig, num_clients: int, tasks: Sequence[Task]) -> list[int]:
    """Return the clients that will be asked something by what is still to be done."""
    gone = dropped(tasks)
    clients = [client for client in range(num_clients) if client not in gone]
    strategy = config.protocol()
    needed = [_needed(strategy, clients, task) for task in tasks if not task.measured]
    return sorted({client for some in needed for client in some})


def _needed(strategy: type[SplitStrategy], clients: Sequence[int], task: Task) -> list[int]:
    if not task.asked:
        return list(clients)
    if task.drop:
        needed = strategy.needed_to_drop([each for each in clients if each not in task.counts])
    else:
        needed = strategy.needed(clients, task.counts)
    return [client for client in needed if client not in task.absent]


def _hashes(joined: bytes) -> list[str]:
    """Return the hashes that a client sent in a row, each in hexadecimal."""
    return [joined[start : start + 32].hex() for start in range(0, len(joined), 32)]


def _check_left_out(strategy: SplitStrategy, task: Task) -> None:
    """Compare what clients say that they left out with what was meant when it was asked."""
    for client, count in task.counts.items():
        if strategy.heard.left_out.get(client) != count:
            raise ClientFailureError(
                f"client {client} was to forget {count} samples at {task.text!r} and says that it "
                f"left out {strategy.heard.left_out.get(client, 'none')}"
            )
