"""A run in this process: Flower's apps without Flower's processes, and without Ray.

The ServerApp's code talks to a grid; this grid calls the ClientApp for each message, in a thread of
this process. Messages are serialised and counted, the link is a socket, and every draw follows
from the seed, so that a run gives the digests, the accuracy and the bytes that it gives on Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from split_unlearning.foundations.options import Value
from split_unlearning.models.devices import without_gpus
from split_unlearning.models.training import kernels_kept
from split_unlearning.simulations import client_app, console
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.launching.launch import Outcome
from split_unlearning.simulations.server_app import answer
from split_unlearning.strategies.server.placement import in_this_process


def run_here(
    settings: Mapping[str, Value],
    clients: int,
    *,
    client_gpus: float = 0,
    on_line: Callable[[str], None],
) -> Outcome:
    """Do what a run config asks for in this process; as ``launching.launch.run_app``.

    With `client_gpus` the clients compute on the GPU that this process has, if it has one; the
    server segment computes on the CPU.
    """
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        on_line(line)

    config = RunConfig.from_mapping(settings)
    where = nullcontext() if client_gpus else without_gpus()
    try:
        with console.heard_by(hear), kernels_kept(), in_this_process(), where:
            answer(config, LocalGrid(config, clients))
    except Exception as error:  # noqa: BLE001 - as what Flower's log says of a run that failed
        reason = " ".join(str(error).split()) or type(error).__name__
        return Outcome(False, reason, "\n".join(lines), error)
    return Outcome(True, "", "\n".join(lines))


class LocalGrid(Grid):
    """Calls the ClientApp of this process for each message, `in_flight` messages at a time.

    There is a node for each of `nodes`, by default for each of `clients` clients. A node keeps its
    state as long as the grid lives.
    """

    def __init__(
        self,
        config: RunConfig,
        clients: int,
        in_flight: int = 1,
        nodes: Collection[int] | None = None,
    ) -> None:
        # Flower's messages take their sender from the process that runs the ServerApp.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.in_flight = in_flight
        self._pushed = 0
        self._replies: list[Message] = []
        self.contexts = {
            self.node_of(partition): Context(
                run_id=1,
                node_id=self.node_of(partition),
                node_config={"partition-id": partition, "num-partitions": clients},
                state=RecordDict(),
                run_config=config.as_mapping(),
            )
            for partition in (range(clients) if nodes is None else nodes)
        }

    def node_of(self, partition: int) -> int:
        """Return the id of the node that calls itself by this number."""
        return 1 + partition

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have every message answered; return the ids that the messages are given."""
        pushed = list(messages)
        for message in pushed:
            self._pushed += 1
            message.metadata.__dict__["_message_id"] = f"message-{self._pushed}"
        with ThreadPoolExecutor(self.in_flight) as workers:
            # Newest first: nobody may rely on the order of replies.
            answers = list(workers.map(self.answer, pushed))[::-1]
        self._replies = [answer for answer in answers if answer is not None]
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers to these messages."""
        known = set(message_ids)
        return [one for one in self._replies if one.metadata.reply_to_message_id in known]

    def answer(self, message: Message) -> Message | None:
        """Return what the ClientApp answers a message; None would be no answer."""
        node_id = message.metadata.dst_node_id
        delivered = message_from_proto(message_to_proto(message))
        try:
            reply = client_app.app(delivered, self.contexts[node_id])
        except Exception as error:  # noqa: BLE001 - a node answers with what its app raised
            raised = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=str(error))
            return Message(raised, reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node_id
        return reply

    def set_run(self, run: Any) -> None:
        """Refuse: nothing here asks for it."""
        raise TypeError("a local grid has no run")

    @property
    def run(self) -> Any:
        """Refuse: nothing here asks for it."""
        raise TypeError("a local grid has no run")

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """Refuse: a message is made by its constructor."""
        raise TypeError("messages are made by their constructor")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Refuse: messages are pushed and pulled."""
        raise TypeError("messages are pushed and pulled")
