"""What a run measured, as a `Result`: from the ledger, from clocks, from scores."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from split_unlearning.evaluation.accuracy import accuracy
from split_unlearning.reporting import result as form
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.preparation import Preparation
from split_unlearning.simulations.session.conversation import Conversation
from split_unlearning.simulations.session.privacy import attacked, privacy_of
from split_unlearning.simulations.state.agenda import Task
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.transport.ledger import Account, Ledger, NetworkSpeed
from split_unlearning.transport.message import Message


class ResultBuilder:
    """Adds each phase of a run to its result as the phase ends, and empties the ledger.

    `tasks` are learning and all that is asked to be forgotten; `phases` is what the runs before
    this one measured.
    """

    def __init__(
        self,
        prepared: Preparation,
        strategy: SplitStrategy,
        conversation: Conversation,
        ledger: Ledger,
        tasks: Sequence[Task],
        phases: Sequence[form.Phase] = (),
    ) -> None:
        self._prepared, self._strategy = prepared, strategy
        self._conversation, self._ledger = conversation, ledger
        self._tasks = list(tasks)
        self._phases = list(phases)
        self._uploads: dict[int, int] = {}
        for phase in phases:
            self._uploads |= (phase.privacy and phase.privacy.uploads) or {}
        self._seen: frozenset[int] | None = None
        self._setup = form.Setup(
            clients=tuple(
                form.ClientTraffic(
                    client=client, **dict(self._traffic(ledger.account(client, "setup")))
                )
                for client in strategy.clients
            )
        )

    def take_cost(self) -> dict[str, Any]:
        """Read the clocks and the ledger of the script that just ended, and start both again.

        What is returned is made of JSON's types: `note_phase` may be given it in this process or,
        from the journal, in a later one.
        """
        strategy = self._strategy
        self._ledger.merge(strategy.server.call(ServerLink.take_ledger))
        return {
            "ledger": [
                [client, phase, asdict(account)] for client, phase, account in self._ledger.take()
            ],
            "server_train_seconds": strategy.server.call(Clock.take),
            "timing": {
                "questions": {
                    action: asdict(asked)
                    for action, asked in self._conversation.take_action_times().items()
                },
                "link": {
                    "batches": strategy.heard.batches,
                    "seconds": strategy.heard.batch_seconds,
                },
            },
            "absent": [str(one) for one in strategy.heard.absences],
            "uploads": strategy.heard.releases,
            "approximations": list(strategy.approximations),
        }

    def note_phase(
        self, task: Task, cost: Mapping[str, Any], relearn: form.Relearning | None = None
    ) -> None:
        """Add a phase after its evaluation; `cost` is from `take_cost`."""
        strategy = self._strategy
        self._ledger.merge(
            (client, phase, Account(**account)) for client, phase, account in cost["ledger"]
        )
        self._conversation.take_action_times()
        # Of JSON, which has no numbers for keys.
        self._uploads |= {int(client): made for client, made in cost.get("uploads", {}).items()}
        asking = self._asking(task)
        requested = {client for one in asking for client in one.counts}
        # A phase that a run measured before it was cut off is measured again.
        self._phases = [phase for phase in self._phases if phase.task != task.number]
        self._phases.append(
            form.Phase(
                task=task.number,
                phase="unlearn" if task.asked else "learn",
                request=task.text or None,
                samples=sum(task.counts.values()),
                accuracy=self._accuracy(asking, strategy.scores),
                by_epoch=self._by_epoch(asking),
                clients=tuple(
                    self._cost(client, task.phase, client in requested)
                    for client in strategy.clients
                ),
                server=form.ServerCost(
                    train_seconds=cost["server_train_seconds"],
                    cache_bytes=strategy.server.call(KeptState.bytes_of_caches),
                ),
                timing=form.Timing.model_validate(cost["timing"]),
                absent=(
                    *(f"client {client} was away" for client in task.absent),
                    *cost["absent"],
                    *(str(one) for one in strategy.heard.absences),
                ),
                approximations=tuple(cost.get("approximations", ())),
                privacy=privacy_of(self._prepared.config, self._uploads),
                label_matching=self._label_matching(),
                membership=None,
                relearn=relearn,
                digests=form.Digests(
                    server=strategy.server.call(ServerModel.digest),
                    clients=dict(sorted(strategy.client_digests.items())),
                ),
            )
        )
        self._ledger.take()

    def result(self) -> form.Result:
        """Return everything that was measured so far."""
        config = self._prepared.config
        return form.Result(
            schema_version=form.SCHEMA_VERSION,
            strategy=config.strategy,
            unlearning=config.unlearning,
            config=config.as_mapping(),
            clients=self._prepared.plan.num_clients,
            environment=environment(
                config,
                self._strategy.server.call(ServerModel.device_name),
                self._strategy.client_devices,
            ),
            distribution=distribution(self._prepared),
            setup=self._setup,
            phases=tuple(self._phases),
        )

    def _label_matching(self) -> form.LabelMatching | None:
        """Attack the masked labels that the server received, where the run is to do that."""
        strategy = self._strategy
        if strategy.real_of is None:
            return None
        # As in `attacked`.
        from split_unlearning.evaluation.client_view import gives_away

        before = self._seen
        attacks, self._seen = attacked(
            strategy.server, strategy.real_of, self._prepared.config.seed
        )
        vanished = None
        if before is not None and self._seen < before:
            vanished = gives_away(before, self._seen, strategy.real_of)
        return form.LabelMatching(**attacks, vanished_are_one_label=vanished)

    def _cost(self, client: int, phase: str, requested: bool) -> form.ClientCost:
        """Return what a phase, and the evaluation after it, cost a client."""
        account = self._ledger.account(client, phase)
        return form.ClientCost(
            client=client,
            requested=requested,
            train_seconds=account.client_seconds,
            pretrain_seconds=account.pretrain_seconds,
            **dict(self._traffic(account)),
            evaluation=self._traffic(self._ledger.account(client, "evaluate")),
        )

    def _traffic(self, account: Account) -> form.Traffic:
        speed = NetworkSpeed.of(self._prepared.config.own)

        def seconds(size: int) -> float:
            return speed.seconds(size, account.messages)

        return form.Traffic(
            bytes_up=account.bytes_up,
            bytes_down=account.bytes_down,
            messages=account.messages,
            transmission_seconds=seconds(account.bytes_up + account.bytes_down),
            transmission_seconds_up=seconds(account.bytes_up),
        )

    def _asking(self, task: Task) -> list[Task]:
        """Return the tasks whose requests are what is forgotten in a task; in learning, all."""
        return [task] if task.asked else self._tasks

    def groups(self, task: Task) -> dict[int, list[list[int]]]:
        """Return which labels of each client a score must tell apart from the rest.

        Those that the task's requests mean, and those that only others mean.
        """
        labels = range(len(self._prepared.dataset.class_names))
        asking = self._asking(task)
        groups = {}
        for client in self._strategy.clients:
            asked = [label for label in labels if _covered(asking, client, label)]
            named = [label for label in labels if _covered(self._tasks, client, label)]
            groups[client] = [asked, [label for label in named if label not in asked]]
        return groups

    def _by_epoch(self, asking: Sequence[Task]) -> tuple[form.EpochAccuracy, ...]:
        """Return the accuracies while the phase went on."""
        accuracies = []
        for epoch, scores in self._strategy.scores_by_epoch.items():
            of_epoch = self._accuracy(asking, scores)
            accuracies.append(
                form.EpochAccuracy(
                    epoch=epoch, unlearned=of_epoch.unlearned, retained=of_epoch.retained
                )
            )
        return tuple(accuracies)

    def _accuracy(self, asking: Sequence[Task], scores: Mapping[int, Message]) -> form.Accuracy:
        """Return the accuracies that scores make; a share without a single test sample is None.

        ``unlearned`` is over the labels and clients of the requests `asking`; ``retained`` is over
        what no request names that is known by now, so that it means the same in a run's phases.
        """
        names = self._prepared.dataset.class_names
        clients = self._strategy.clients
        by_label = self._strategy.counts_by_label
        # Else there are three groups: what these requests mean, what others do, the rest.
        columns = len(names) if by_label else 3
        shape = (len(clients), columns)
        correct, samples = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for client, message in scores.items():
            row = clients.index(client)
            correct[row] = json.loads(str(message.fields["correct"]))
            samples[row] = json.loads(str(message.fields["samples"]))

        # Which (client, label) cells of the counts belong to what.
        unlearned, named = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        if by_label:
            for row, client in enumerate(clients):
                for label in range(len(names)):
                    unlearned[row, label] = _covered(asking, client, label)
                    named[row, label] = _covered(self._tasks, client, label)
        else:
            unlearned[:, 0] = named[:, :2] = True
        return form.Accuracy(
            unlearned=accuracy(correct, samples, unlearned),
            retained=accuracy(correct, samples, ~named),
            per_label={
                name: accuracy(correct[:, label], samples[:, label]) if by_label else None
                for label, name in enumerate(names)
            },
            per_client={
                client: accuracy(correct[row], samples[row]) for row, client in enumerate(clients)
            },
            per_task={
                task: accuracy(correct[rows], samples[rows])
                for task, rows in self._rows_of_tasks().items()
            },
        )

    def _rows_of_tasks(self) -> dict[str, list[int]]:
        """Return, by the data set, the places among the clients of those that hold it."""
        dataset, plan = self._prepared.dataset, self._prepared.plan
        if len(dataset.tasks) == 1:
            return {dataset.name: list(range(len(self._strategy.clients)))}
        rows: dict[str, list[int]] = {task.name: [] for task in dataset.tasks}
        for row, client in enumerate(self._strategy.clients):
            labels = dataset.y_train[plan.train[client]]
            rows[dataset.tasks[dataset.task_of_label[labels[0]]].name].append(row)
        return rows


def _covered(tasks: Sequence[Task], client: int, label: int) -> bool:
    return any(task.covers(client, label) for task in tasks)


def environment(
    config: RunConfig, server_device: str, client_devices: Collection[str]
) -> form.Environment:
    """Return what the last bits of a result may depend on."""
    return form.Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor_count=os.cpu_count(),
        threads=config.training().threads,
        precision=config.own.text("precision"),
        server_device=server_device,
        client_devices=tuple(sorted(client_devices)),
        **{name: _version(name) for name in ("flwr", "ray", "torch", "numpy")},
    )


# Reading it parses a package's whole description, ten milliseconds that each phase would wait for.
@cache
def _version(package: str) -> str:
    return version(package)


def distribution(prepared: Preparation) -> form.Distribution:
    """Return who holds how much of the training split before anything is forgotten."""
    labels = prepared.dataset.class_names
    return form.Distribution(
        labels=tuple(labels),
        train=tuple(
            tuple(np.bincount(prepared.dataset.y_train[ids], minlength=len(labels)).tolist())
            for ids in prepared.plan.train
        ),
    )
