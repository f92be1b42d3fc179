"""Runs in this process, with all that they leave behind, for fast tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import torch
from flwr.app import Message, RecordDict

from split_unlearning.simulations import client_app, local_engine
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.server_app import carry_out
from split_unlearning.simulations.session.session import Session
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.unlearning.tensor_store import TensorStore

_INSTRUCTIONS = ("fitins.config", "evaluateins.config")


def node_of(client: int) -> int:
    """Node ids are no client numbers, and come in no order."""
    return 1000 - 7 * client


def client_of(node_id: int) -> int:
    return (1000 - node_id) // 7


def instructions(message: Message) -> Iterator[Mapping[str, Any]]:
    """The fields of what a message asks a client to do; none if it asks who the client is."""
    for name, fields in message.content.config_records.items():
        if name in _INSTRUCTIONS:
            yield fields


class LocalGrid(local_engine.LocalGrid):
    """The product's grid, which keeps what was sent.

    Whoever is `silent`, said of a client and the fields of its instruction, works, but its answer
    does not arrive.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        num_clients: int,
        in_flight: int = 1,
        silent: Callable[[int, Mapping[str, Any]], bool] = lambda *_: False,
        nodes: Collection[int] | None = None,
    ) -> None:
        super().__init__(RunConfig.from_mapping(settings), num_clients, in_flight, nodes)
        self._silent = silent
        self.sent: list[tuple[int, RecordDict, RecordDict]] = []

    def node_of(self, partition: int) -> int:
        return node_of(partition)

    def answer(self, message: Message) -> Message | None:
        reply = super().answer(message)
        assert reply is not None
        node_id = message.metadata.dst_node_id
        if reply.has_error():
            return reply
        if any(self._silent(client_of(node_id), fields) for fields in instructions(message)):
            return None
        # Copies: who reads a message may take it apart.
        self.sent.append((node_id, *(deepcopy(one.content) for one in (message, reply))))
        return reply


@contextmanager
def dealt(dataset: Dataset, plan: Plan) -> Iterator[None]:
    """Deal these samples like that, whatever the run config says."""

    def deal(config: RunConfig, num_clients: int) -> tuple[Dataset, Plan]:
        return dataset, plan

    client_app._holding.cache_clear()
    with ExitStack() as stack:
        for room in ("preparation", "client_app", "state.state_dir"):
            stack.enter_context(patch(f"split_unlearning.simulations.{room}.deal", deal))
        yield
    client_app._holding.cache_clear()


class LocalRun:
    """One run of the app on a `LocalGrid`, and all it left behind."""

    def __init__(
        self,
        num_clients: int,
        in_flight: int = 1,
        *,
        silent: Callable[[int, Mapping[str, Any]], bool] = lambda *_: False,
        nodes: Collection[int] | None = None,
        **settings: Any,
    ) -> None:
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        config = RunConfig.from_mapping(named)
        self.grid = LocalGrid(named, num_clients, in_flight, silent, nodes)
        carry_out(config, self.grid, self._run)

    def _run(self, session: Session) -> None:
        self.prepared, self.strategy = session.prepared, session.strategy
        self.result = session.run().to_dict()
        self.server_state = session.server.call(ServerModel.state)

    @property
    def phases(self) -> list[dict[str, Any]]:
        return self.result["phases"]

    @property
    def digests(self) -> dict[str, Any]:
        return self.phases[-1]["digests"]

    def client_state(self, client: int) -> dict[str, torch.Tensor]:
        """The weights that a client kept."""
        context = self.grid.contexts[node_of(client)]
        weights = TensorStore(client_app.ContextStore(context)).load("segment")
        assert weights is not None
        return weights

    def instructions(self, phase: str) -> list[tuple[int, str]]:
        """The client and the action of every instruction that crossed in a phase, in order."""
        crossed = []
        for node_id, content, _ in self.grid.sent:
            for name, fields in content.config_records.items():
                if name in _INSTRUCTIONS and fields["phase"] == phase:
                    crossed.append((client_of(node_id), str(fields["action"])))
        return crossed
