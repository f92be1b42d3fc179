"""Asking a script's questions through Flower's grid, one send-and-receive a question.

The only module that knows how a NumPyClient is reached from a ServerApp's main function.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from flwr.app import Message, MessageType, RecordDict
from flwr.common import (
    Code,
    EvaluateRes,
    FitRes,
    GetPropertiesIns,
    Parameters,
    Scalar,
)
from flwr.common.serde import recorddict_to_proto
from flwr.compat.common import recorddict_compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.serverapp import Grid

from split_unlearning.foundations.errors import refuse
from split_unlearning.simulations.session.envelope import Envelope
from split_unlearning.simulations.session.exchange import Trouble, exchange
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.strategies.script import Script
from split_unlearning.transport.ledger import Ledger

Answer = TypeVar("Answer", FitRes, EvaluateRes)

_GET_PROPERTIES = "get_properties"
_NODES_SECONDS = 60.0


@dataclass
class ActionTime:
    """How often an action was asked for, and how long the answers took, in seconds."""

    times: int = 0
    seconds: float = 0.0


class NodeProxy(ClientProxy):
    """Names a client and its node; the conversation, not the proxy, sends its messages."""

    def __init__(self, client: int, node_id: int) -> None:
        super().__init__(str(client))
        self.client = client
        self.node_id = node_id

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("clients are asked through a Conversation")

    get_properties = get_parameters = fit = evaluate = reconnect = _refuse


class Conversation:
    """Every message between the strategy and the clients of one run.

    The ledger counts each message where it crosses, by client and phase: the bytes of its
    serialised content, both ways. Clients have `round_timeout` seconds for an answer. Where this
    is one of several runs, every message is in an envelope, and the first of the nodes take part.
    """

    def __init__(
        self,
        grid: Grid,
        ledger: Ledger,
        round_timeout: float = math.inf,
        envelope: Envelope | None = None,
    ) -> None:
        self._grid = grid
        self._ledger = ledger
        self._round_timeout = round_timeout
        self._envelope = envelope
        self._manager = SimpleClientManager()
        self._action_times: defaultdict[str, ActionTime] = defaultdict(ActionTime)

    def meet(self, total: int = 0, wanted: Sequence[int] = ()) -> int:
        """Wait for the nodes, learn which client each is, and return the number of clients.

        With 0 for `total` the nodes say that number. Where it is known, only the clients in
        `wanted` need come: a simulation may have a node for each of them instead of a node for
        each client.

        Raises
        ------
        ClientFailureError
            If the nodes do not come, or do not say which client they are.
        UserError
            If there are neither as many nodes as clients nor as many as are wanted.
        """
        known: dict[int, int] = {}
        clients: dict[int, int] = {}
        expected = 1
        if self._envelope is not None:
            total, wanted = self._envelope.clients, range(self._envelope.clients)
        last_came = time.monotonic()
        # Where no client is wanted, one answer is awaited all the same: it shows that Flower runs.
        while not known or len(clients) < (len(wanted) if total else expected):
            strangers = sorted(set(self._grid.get_node_ids()) - set(known.values()))
            # The first answer says how many nodes there are.
            before = len(known)
            for node_id, properties in self._introduce(strangers if known else strangers[:1]):
                known[int(str(properties["partition-id"]))] = node_id
                expected = int(str(properties["num-partitions"]))
            names = dict(enumerate(range(expected)))
            if total:
                names = _names(total, wanted, expected)
            clients = {names[name]: node for name, node in known.items() if name in names}
            # Answers alone are no news: two nodes that call themselves the same client answer on.
            if len(known) > before:
                last_came = time.monotonic()
            elif time.monotonic() - last_came > _NODES_SECONDS:
                raise ClientFailureError(
                    f"{len(clients)} of {len(names)} clients came, and none for "
                    f"{_NODES_SECONDS:.0f} seconds"
                )
            else:
                time.sleep(0.05)
        if not total and sorted(known) != list(range(expected)):
            raise ClientFailureError(f"clients call themselves {sorted(known)}, not 0 and so on")
        for client, node_id in sorted(clients.items()):
            self._manager.register(NodeProxy(client, node_id))
        return total or expected

    def _introduce(self, node_ids: list[int]) -> list[tuple[int, dict[str, Scalar]]]:
        """Ask nodes which client they are; return their properties."""
        content = recorddict_compat.getpropertiesins_to_recorddict(GetPropertiesIns({}))
        down = _size(content)
        self._enclose(content)
        messages = [Message(content, node_id, _GET_PROPERTIES) for node_id in node_ids]
        replies = exchange(self._grid, messages, self._round_timeout)
        introduced = []
        for node_id, reply in replies.items():
            if isinstance(reply, Trouble):
                raise ClientFailureError(f"a client does not say who it is: {reply.reason}")
            answer = recorddict_compat.recorddict_to_getpropertiesres(reply)
            if answer.status.code is not Code.OK:
                raise ClientFailureError(
                    f"a client does not say who it is: {answer.status.message}"
                )
            client = int(str(answer.properties["partition-id"]))
            self._ledger.record(client, "setup", up=_size(reply), down=down, messages=1)
            introduced.append((node_id, dict(answer.properties)))
        return introduced

    def _enclose(self, content: RecordDict) -> None:
        if self._envelope is not None:
            self._envelope.enclose(content)

    def hold(self, strategy: SplitStrategy, script: Script, phase: str) -> None:
        """Run a script of the strategy to its end; the ledger counts it under the phase.

        Raises
        ------
        ClientFailureError
            If a client does not answer; it names the client, the phase and the action.
        """
        strategy.begin(script, phase)
        server_round = 0
        while strategy.question is not None:
            server_round += 1
            if strategy.question.kind == "fit":
                self._fit(strategy, server_round)
            else:
                self._evaluate(strategy, server_round)

    def take_action_times(self) -> dict[str, ActionTime]:
        """Return, by action, how often it was asked for since the last call and how long it took.

        The time is from a question to its last answer: the server's work between questions is not
        in it.
        """
        taken, self._action_times = self._action_times, defaultdict(ActionTime)
        return dict(taken)

    def _fit(self, strategy: SplitStrategy, server_round: int) -> None:
        instructions = strategy.configure_fit(
            server_round=server_round, parameters=_NOTHING, client_manager=self._manager
        )
        results, failures = self._ask(
            strategy,
            MessageType.TRAIN,
            [
                (proxy, recorddict_compat.fitins_to_recorddict(ins, keep_input=False))
                for proxy, ins in instructions
            ],
            lambda content: recorddict_compat.recorddict_to_fitres(content, keep_input=False),
        )
        strategy.aggregate_fit(server_round=server_round, results=results, failures=failures)

    def _evaluate(self, strategy: SplitStrategy, server_round: int) -> None:
        instructions = strategy.configure_evaluate(
            server_round=server_round, parameters=_NOTHING, client_manager=self._manager
        )
        results, failures = self._ask(
            strategy,
            MessageType.EVALUATE,
            [
                (proxy, recorddict_compat.evaluateins_to_recorddict(ins, keep_input=False))
                for proxy, ins in instructions
            ],
            recorddict_compat.recorddict_to_evaluateres,
        )
        strategy.aggregate_evaluate(server_round=server_round, results=results, failures=failures)

    def _ask(
        self,
        strategy: SplitStrategy,
        message_type: str,
        contents: list[tuple[ClientProxy, RecordDict]],
        read: Callable[[RecordDict], Answer],
    ) -> tuple[list[tuple[ClientProxy, Answer]], list[tuple[ClientProxy, Answer] | BaseException]]:
        """Send one message to each client, wait for all, count what crossed."""
        phase, question = strategy.phase, strategy.question
        assert question is not None
        proxies: dict[int, NodeProxy] = {}
        messages = []
        down = {}
        for proxy, content in contents:
            assert isinstance(proxy, NodeProxy)
            proxies[proxy.node_id] = proxy
            down[proxy.node_id] = _size(content)
            self._enclose(content)
            messages.append(Message(content, proxy.node_id, message_type))
        started = time.perf_counter()
        replies = exchange(self._grid, messages, self._round_timeout)
        time_of = self._action_times[next(iter(question.messages.values())).action]
        time_of.times += 1
        time_of.seconds += time.perf_counter() - started
        results: list[tuple[ClientProxy, Answer]] = []
        failures: list[tuple[ClientProxy, Answer] | BaseException] = []
        for node_id, proxy in proxies.items():
            reply = replies[node_id]
            up = 0 if isinstance(reply, Trouble) else _size(reply)
            self._ledger.record(proxy.client, phase, up=up, down=down[node_id], messages=1)
            answer = reply if isinstance(reply, Trouble) else read(reply)
            if not isinstance(answer, Trouble) and answer.status.code is Code.OK:
                self._ledger.record(
                    proxy.client,
                    phase,
                    client_seconds=float(answer.metrics.get("seconds", 0.0)),
                    pretrain_seconds=float(answer.metrics.get("pretrain-seconds", 0.0)),
                )
                results.append((proxy, answer))
                continue
            trouble = answer if isinstance(answer, Trouble) else Trouble(answer.status.message)
            action = question.messages[proxy.client].action
            failure = ClientFailureError(
                f"client {proxy.client} failed in phase {phase} at {action!r}: {trouble.reason}",
                proxy.client,
            )
            if trouble.fatal:
                raise failure
            failures.append(failure)
        return results, failures


def _names(total: int, wanted: Sequence[int], nodes: int) -> dict[int, int]:
    """Return the client that each wanted node stands for, by what the node calls itself."""
    if nodes == total or not wanted:
        return {client: client for client in wanted}
    if nodes == len(wanted):
        return dict(enumerate(sorted(wanted)))
    allowed = f"{total}, the number of clients, or {len(wanted)}, of those that are needed"
    raise refuse("num-supernodes", nodes, allowed)


_NOTHING = Parameters(tensors=[], tensor_type="")


def _size(content: RecordDict) -> int:
    """Return the size of a message's content as it is serialised, in bytes."""
    return int(recorddict_to_proto(content).ByteSize())
