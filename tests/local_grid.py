"""A Flower grid without Ray: the real ClientApp, called in this process, for fast tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from split_unlearning.simulations import client_app
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


class LocalGrid(Grid):
    """Calls the ClientApp for each message, `in_flight` at a time, and keeps what was sent.

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
        self._silent = silent
        # Flower's messages take their sender from the process that runs the ServerApp.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.in_flight = in_flight
        self._pushed = 0
        self._replies: list[Message] = []
        self.sent: list[tuple[int, RecordDict, RecordDict]] = []
        run_config = RunConfig.from_mapping(settings).as_mapping()
        self.contexts = {
            node_of(partition): Context(
                run_id=1,
                node_id=node_of(partition),
                node_config={"partition-id": partition, "num-partitions": num_clients},
                state=RecordDict(),
                run_config=run_config,
            )
            for partition in (range(num_clients) if nodes is None else nodes)
        }

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = list(messages)
        for message in pushed:
            self._pushed += 1
            message.metadata.__dict__["_message_id"] = f"message-{self._pushed}"
        with ThreadPoolExecutor(self.in_flight) as workers:
            # Newest first: nobody may rely on the order of replies.
            answers = list(workers.map(self._answer, pushed))[::-1]
        self._replies = [answer for answer in answers if answer is not None]
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        known = set(message_ids)
        return [one for one in self._replies if one.metadata.reply_to_message_id in known]

    def _answer(self, message: Message) -> Message | None:
        node_id = message.metadata.dst_node_id
        delivered = message_from_proto(message_to_proto(message))
        try:
            reply = client_app.app(delivered, self.contexts[node_id])
        except Exception as error:  # noqa: BLE001 - a node answers with what its app raised
            raised = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=str(error))
            return Message(raised, reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node_id
        if any(self._silent(client_of(node_id), fields) for fields in instructions(message)):
            return None
        # Copies: who reads a message may take it apart.
        self.sent.append((node_id, *(deepcopy(one.content) for one in (message, reply))))
        return reply

    def set_run(self, run: Any) -> None:
        raise TypeError("a local grid has no run")

    @property
    def run(self) -> Any:
        raise TypeError("a local grid has no run")

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise TypeError("messages are made by their constructor")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise TypeError("messages are pushed and pulled")


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
