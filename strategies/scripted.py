"""A script, asked through Flower: its four methods take one question after the other from it.

Flower calls a strategy back round by round; a script is written from top to bottom. They meet here,
once: `ScriptedStrategy` holds a script at the question it waits with, `configure_fit` and
`configure_evaluate` take the question from it, `aggregate_fit` and `aggregate_evaluate` hand it the
answers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
from flwr.common import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy

from split_unlearning.strategies.heard import ClientFailureError, Heard
from split_unlearning.strategies.script import Question, Reply, Script
from split_unlearning.transport.link import own_link
from split_unlearning.transport.message import Message

_NAMED_FAILURES = 3

# Actions that change nothing of what a client holds.
_MEASURING = ("upload", "score", "audit")


class ScriptedStrategy(Strategy):
    """A strategy that runs one script at a time."""

    def __init__(self) -> None:
        self.phase = "setup"
        self.addressing: dict[str, Scalar] = {}
        """Fields that every instruction carries."""
        self.kept_by: dict[int, str] = {}
        """By client, the attempt that it is to go on from; said along with a new attempt."""
        self.heard = Heard()
        """What clients said of themselves in the last script."""
        self.client_digests: dict[int, str] = {}
        """By client, of the segment that it said it holds."""
        self.client_devices: set[str] = set()
        """What the clients that answered computed on: cpu, or names of GPUs."""
        self._script: Script | None = None
        self._question: Question | None = None

    def begin(self, script: Script, phase: str) -> None:
        """Run a script up to its first question; the ledger counts it under `phase`."""
        if not isinstance(script, Generator):
            raise TypeError(
                f"{type(self).__name__} has no script for the phase {phase}: learn and unlearn "
                "are generators, which yield"
            )
        self._script, self.phase, self.heard = script, phase, Heard()
        self._advance(None)

    @property
    def question(self) -> Question | None:
        """The question the script waits with; None when it has ended."""
        return self._question

    def _advance(self, replies: list[Reply] | None) -> None:
        """Send the script its answers and take its next question that asks somebody something."""
        assert self._script is not None
        try:
            # A generator's first step takes None.
            self._question = self._script.send(replies)  # type: ignore[arg-type]
            while not self._question.messages:
                self._question = self._script.send([])
        except StopIteration:
            self._question = None

    def _instructions(
        self, kind: str, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, list[np.ndarray], dict[str, Scalar]]]:
        if self._question is None or self._question.kind != kind:
            return []
        proxies = client_manager.all()
        packed = []
        for client, message in self._question.messages.items():
            fields = {**own_link(message.fields, client), **self._address(client)}
            fields |= {"client": client, "phase": self.phase}
            addressed = Message(message.action, fields, message.tensors)
            packed.append((proxies[str(client)], *addressed.pack()))
        return packed

    def _address(self, client: int) -> dict[str, Scalar]:
        if "attempt" not in self.addressing:
            return self.addressing
        return {**self.addressing, "kept": self.kept_by.get(client, "")}

    def _answer(self, replies: list[Reply], failures: Sequence[object]) -> None:
        assert self._question is not None
        if failures and not self._question.optional:
            named = [str(failure) for failure in failures[:_NAMED_FAILURES]]
            more = len(failures) - len(named)
            raise ClientFailureError("; ".join([*named, *([f"and {more} more"] if more else [])]))
        for failure in failures:
            if isinstance(failure, ClientFailureError):
                self.heard.absences.append(failure)
                if self._question.messages[failure.client].action not in _MEASURING:
                    # It may have finished all the same, too late: what it holds is not known.
                    self.client_digests.pop(failure.client, None)
        for reply in replies:
            self.heard.note(reply)
            if "device" in reply.message.fields:
                self.client_devices.add(str(reply.message.fields["device"]))
            if "digest" in reply.message.fields:
                self.client_digests[reply.client] = str(reply.message.fields["digest"])
        self._advance(sorted(replies, key=lambda reply: reply.client))

    # Flower's Strategy.

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return None: no parameters are shared by all clients."""
        return None

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Return the script's question, if `fit` answers it."""
        return [
            (proxy, FitIns(ndarrays_to_parameters(arrays), config))
            for proxy, arrays, config in self._instructions("fit", client_manager)
        ]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Send the answers to the script.

        Raises
        ------
        ClientFailureError
            If a client did not answer.
        """
        replies = [
            Reply(
                int(proxy.cid),
                Message.unpack(parameters_to_ndarrays(result.parameters), result.metrics),
            )
            for proxy, result in results
        ]
        self._answer(replies, failures)
        return None, {}

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Return the script's question, if `evaluate` answers it."""
        return [
            (proxy, EvaluateIns(ndarrays_to_parameters(arrays), config))
            for proxy, arrays, config in self._instructions("evaluate", client_manager)
        ]

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Send the answers to the script; raises as `aggregate_fit`."""
        replies = [
            Reply(int(proxy.cid), Message.unpack([], result.metrics)) for proxy, result in results
        ]
        self._answer(replies, failures)
        return None, {}

    def evaluate(
        self, server_round: int, parameters: Parameters
    ) -> tuple[float, dict[str, Scalar]] | None:
        """Return None: the server holds no test data."""
        return None
