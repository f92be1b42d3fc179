"""What a run measured, as ``result.json``: from the ledger, from clocks, from scores."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from split_unlearning.foundations.files import write_whole
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
from split_unlearning.strategies.splitwiper_plus import SplitWiperPlus
from split_unlearning.transport.ledger import Account, Ledger, transmission_seconds
from split_unlearning.transport.message import Message

SCHEMA_VERSION = 1


class Recorder:
    """Takes down each phase of a run as it ends.

    Parameters
    ----------
    prepared : Preparation
        What the run does.
    strategy : SplitStrategy
        Whose clocks, digests and scores are read.
    conversation : Conversation
        Whose waiting times are read.
    ledger : Ledger
        What crossed in the phase; emptied at the end of each.
    tasks : sequence of Task
        All that is asked to be forgotten, and learning.
    phases : sequence of dict
        What was taken down by the runs before this one.
    """

    def __init__(
        self,
        prepared: Preparation,
        strategy: SplitStrategy,
        conversation: Conversation,
        ledger: Ledger,
        tasks: Sequence[Task],
        phases: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._prepared, self._strategy = prepared, strategy
        self._conversation, self._ledger = conversation, ledger
        self._tasks = list(tasks)
        self._phases: list[dict[str, Any]] = list(phases)
        self._uploads: dict[int, int] = {}
        for phase in phases:
            told = (phase["privacy"] or {}).get("uploads", {})
            self._uploads |= {int(client): made for client, made in told.items()}
        self._seen: frozenset[int] | None = None
        self._setup = [
            {"client": client, **self._traffic(ledger.account(client, "setup"))}
            for client in strategy.clients
        ]

    def take_cost(self) -> dict[str, Any]:
        """Read the clocks and the ledger of the script that just ended, and start both again.

        Returns
        -------
        dict
            Of what JSON can hold, for `note_phase`, in this process or in one that goes on after
            this one.
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
                    for action, asked in self._conversation.take_asked().items()
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
        self, task: Task, cost: dict[str, Any], relearn: dict[str, Any] | None = None
    ) -> None:
        """Take down a phase after its evaluation.

        Parameters
        ----------
        task : Task
            What was done in it.
        cost : dict
            From `take_cost`.
        relearn : dict, optional
            From `relearn_time`.
        """
        strategy = self._strategy
        self._ledger.merge(
            (client, phase, Account(**account)) for client, phase, account in cost["ledger"]
        )
        self._conversation.take_asked()
        # Of JSON, which has no numbers for keys.
        self._uploads |= {int(client): made for client, made in cost.get("uploads", {}).items()}
        asking = self._asking(task)
        requested = {client for one in asking for client in one.counts}
        # One that was taken down by a run that did not come to its end is taken down again.
        self._phases = [phase for phase in self._phases if phase["task"] != task.number]
        self._phases.append(
            {
                "task": task.number,
                "phase": task.phase,
                "request": task.text or None,
                "samples": sum(task.counts.values()),
                "accuracy": self._accuracy(asking, strategy.scores),
                "by_epoch": self._by_epoch(asking),
                "clients": [
                    self._cost(client, task.phase, client in requested)
                    for client in strategy.clients
                ],
                "server": {
                    "train_seconds": cost["server_train_seconds"],
                    "cache_bytes": strategy.server.call(KeptState.bytes_of_caches),
                },
                "timing": cost["timing"],
                "absent": [
                    *(f"client {client} was away" for client in task.absent),
                    *cost["absent"],
                    *(str(one) for one in strategy.heard.absences),
                ],
                "approximations": cost.get("approximations", []),
                "privacy": privacy_of(self._prepared.config, self._uploads),
                "label_matching": self._label_matching(task),
                "membership": None,
                "relearn": relearn,
                "digests": {
                    "server": strategy.server.call(ServerModel.digest),
                    "clients": {
                        str(client): digest
                        for client, digest in sorted(strategy.client_digests.items())
                    },
                },
            }
        )
        self._ledger.take()

    def result(self) -> dict[str, Any]:
        """Return everything that was taken down."""
        config = self._prepared.config
        return {
            "schema_version": SCHEMA_VERSION,
            "strategy": config.strategy,
            "unlearning": config.unlearning,
            "config": config.as_mapping(),
            "clients": self._prepared.plan.num_clients,
            "environment": environment(
                config,
                self._strategy.server.call(ServerModel.device_name),
                self._strategy.client_devices,
            ),
            "distribution": distribution(self._prepared),
            "setup": {"clients": self._setup},
            "phases": self._phases,
        }

    def _label_matching(self, task: Task) -> dict[str, Any] | None:
        """Attack the masked labels that the server received, where the run is to do that."""
        strategy = self._strategy
        if not isinstance(strategy, SplitWiperPlus) or strategy.real_of is None:
            return None
        # As in `attacked`.
        from split_unlearning.evaluation.client_view import gives_away

        found, seen = attacked(strategy.server, strategy.real_of, self._prepared.config.seed)
        if self._seen is not None and seen < self._seen:
            found["vanished_are_one_label"] = gives_away(self._seen, seen, strategy.real_of)
        self._seen = seen
        return found

    def _cost(self, client: int, phase: str, requested: bool) -> dict[str, Any]:
        """Return what a phase, and the evaluation after it, cost a client."""
        return {
            "client": client,
            "requested": requested,
            "train_seconds": self._ledger.account(client, phase).client_seconds,
            "pretrain_seconds": self._ledger.account(client, phase).pretrain_seconds,
            **self._traffic(self._ledger.account(client, phase)),
            "evaluation": self._traffic(self._ledger.account(client, "evaluate")),
        }

    def _traffic(self, account: Account) -> dict[str, Any]:
        config = self._prepared.config

        def seconds(size: int) -> float:
            return transmission_seconds(
                size, account.messages, config.bandwidth_mbps, config.latency_ms
            )

        return {
            "bytes_up": account.bytes_up,
            "bytes_down": account.bytes_down,
            "messages": account.messages,
            "transmission_seconds": seconds(account.bytes_up + account.bytes_down),
            "transmission_seconds_up": seconds(account.bytes_up),
        }

    def _asking(self, task: Task) -> list[Task]:
        """Return the tasks whose requests are what is forgotten in a task; in learning, all."""
        return [task] if task.asked else self._tasks

    def groups(self, task: Task) -> dict[int, list[list[int]]]:
        """Return which labels of each client a score must tell apart from the rest.

        Those that the task's requests mean, and those that only others mean.
        """
        labels = range(len(self._prepared.dataset.class_names))
        asking = self._asking(task)
        found = {}
        for client in self._strategy.clients:
            asked = [label for label in labels if _covered(asking, client, label)]
            named = [label for label in labels if _covered(self._tasks, client, label)]
            found[client] = [asked, [label for label in named if label not in asked]]
        return found

    def _by_epoch(self, asking: Sequence[Task]) -> list[dict[str, Any]]:
        """Return the accuracies while the phase went on."""
        found = []
        for epoch, scores in self._strategy.scores_by_epoch.items():
            accuracy = self._accuracy(asking, scores)
            shares = {name: accuracy[name] for name in ("unlearned", "retained")}
            found.append({"epoch": epoch, **shares})
        return found

    def _accuracy(self, asking: Sequence[Task], scores: Mapping[int, Message]) -> dict[str, Any]:
        """Return the accuracies that scores make; a share without a single test sample is None.

        ``unlearned`` is over the labels and clients of the requests `asking`; ``retained`` is over
        what no request names that is known by now, so that it means the same in a run's phases.
        """
        names = self._prepared.dataset.class_names
        clients = self._strategy.clients
        by_label = self._strategy.counts_by_label
        # Else there are three groups: what these requests mean, what others do, the rest.
        columns = len(names) if by_label else 3
        counts = np.zeros((2, len(clients), columns), dtype=np.int64)
        for client, message in scores.items():
            for row, name in enumerate(("correct", "samples")):
                counts[row, clients.index(client)] = json.loads(str(message.fields[name]))

        # Which (client, label) cells of the counts belong to what.
        everything = np.ones(counts.shape[1:], dtype=bool)
        unlearned, named = ~everything, ~everything
        if by_label:
            for row, client in enumerate(clients):
                for label in range(len(names)):
                    unlearned[row, label] = _covered(asking, client, label)
                    named[row, label] = _covered(self._tasks, client, label)
        else:
            unlearned[:, 0] = named[:, :2] = True
        return {
            "unlearned": _share(counts, unlearned),
            "retained": _share(counts, ~named),
            "per_label": {
                name: _share(counts[:, :, [label]], everything[:, [label]]) if by_label else None
                for label, name in enumerate(names)
            },
            "per_client": {
                str(client): _share(counts[:, [row]], everything[[row]])
                for row, client in enumerate(clients)
            },
            "per_task": {
                task: _share(counts[:, rows], everything[rows])
                for task, rows in self._rows_of_tasks().items()
            },
        }

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
) -> dict[str, Any]:
    """Return what the last bits of a result may depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor_count": os.cpu_count(),
        "threads": config.threads,
        "precision": config.precision,
        "server_device": server_device,
        "client_devices": sorted(client_devices),
        **{name: _version(name) for name in ("flwr", "ray", "torch", "numpy")},
    }


# Reading it parses a package's whole description, ten milliseconds that each phase would wait for.
@cache
def _version(package: str) -> str:
    return version(package)


def distribution(prepared: Preparation) -> dict[str, Any]:
    """Return who holds how much before anything is forgotten, of the training split.

    Returns
    -------
    dict
        ``labels``, the names of all; ``train``, a row for each client: how many samples of each
        label it holds.
    """
    labels = prepared.dataset.class_names
    counts = [
        np.bincount(prepared.dataset.y_train[ids], minlength=len(labels)).tolist()
        for ids in prepared.plan.train
    ]
    return {"labels": list(labels), "train": counts}


def _share(counts: np.ndarray, where: np.ndarray) -> float | None:
    """Return the share of correct test samples among those selected, None if there are none."""
    correct, samples = int(counts[0][where].sum()), int(counts[1][where].sum())
    return correct / samples if samples else None


def write_result(result: dict[str, Any], folder: str) -> Path:
    """Write ``result.json`` into a folder, and return where it is."""
    return write_json(result, Path(folder) / "result.json")


def write_json(value: dict[str, Any], path: Path) -> Path:
    """Write a JSON file, whole or not at all, and return where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())
    return path
