"""A Flower grid without Ray: the real ClientApp, called in this process, for fast tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from simulations.client_app import app as client_app
from simulations.config import RunConfig
from simulations.conversation import Conversation
from simulations.plan import prepare
from simulations.server_app import run
from strategies.base import SplitStrategy
from strategies.placement import place, release
from transport.ledger import Ledger


class LocalGrid(Grid):
    """Calls the ClientApp for each message, `in_flight` at a time, and keeps what was sent."""

    def __init__(self, settings: Mapping[str, Any], num_clients: int, in_flight: int = 1) -> None:
        # Flower's messages take their sender from the process that runs the ServerApp.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.in_flight = in_flight
        self.sent: list[tuple[int, RecordDict, RecordDict]] = []
        run_config = RunConfig.from_mapping(settings).as_mapping()
        # Node ids are no partition ids, and come in no order.
        self.contexts = {
            1000 - 7 * partition: Context(
                run_id=1,
                node_id=1000 - 7 * partition,
                node_config={"partition-id": partition, "num-partitions": num_clients},
                state=RecordDict(),
                run_config=run_config,
            )
            for partition in range(num_clients)
        }

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        with ThreadPoolExecutor(self.in_flight) as workers:
            # Newest first: nobody may rely on the order of replies.
            return list(workers.map(self._answer, list(messages)))[::-1]

    def _answer(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        message.metadata.__dict__["_message_id"] = f"message-{len(self.sent)}-{node_id}"
        delivered = message_from_proto(message_to_proto(message))
        try:
            reply = client_app(delivered, self.contexts[node_id])
        except Exception as error:  # noqa: BLE001 - a node answers with what its app raised
            return Message(Error(code=0, reason=str(error)), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node_id
        self.sent.append((node_id, message.content, reply.content))
        return reply

    def set_run(self, run: Any) -> None:
        raise TypeError("a local grid has no run")

    @property
    def run(self) -> Any:
        raise TypeError("a local grid has no run")

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise TypeError("messages are made by their constructor")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise TypeError("a local grid sends and receives at once")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise TypeError("a local grid sends and receives at once")


class LocalRun:
    """One run of the app on a `LocalGrid`, and all it left behind."""

    def __init__(self, num_clients: int, in_flight: int = 1, **settings: Any) -> None:
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        config = RunConfig.from_mapping(named)
        self.grid = LocalGrid(named, num_clients, in_flight)
        self.ledger = Ledger()
        conversation = Conversation(self.grid, self.ledger)
        self.prepared = prepare(config, conversation.meet())
        dataset = self.prepared.dataset
        server = place(
            0,
            0,
            model=config.model,
            input_shape=dataset.input_shape,
            num_labels=dataset.num_classes,
            training=config.training(),
        )
        try:
            self.strategy: SplitStrategy
            self.strategy, self.result = run(self.prepared, server, conversation, self.ledger)
            self.server_state = server.state()
        finally:
            release(server)

    @property
    def phases(self) -> list[dict[str, Any]]:
        return self.result["phases"]

    @property
    def digests(self) -> dict[str, Any]:
        return self.phases[-1]["digests"]
