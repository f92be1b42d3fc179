"""A NumPyClient that acts on instructions: an instruction's action names a method.

Flower makes a new client for each message. Here the message is read, the client's samples and state
are loaded for the method that it names, and the answer is completed with the cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from flwr.client import NumPyClient
from flwr.common import Scalar

from split_unlearning.clients.forgotten import ForgottenSamples
from split_unlearning.clients.holding import Holding
from split_unlearning.clients.setting import ClientSetting
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import Options, Owner
from split_unlearning.models.devices import device, name_of
from split_unlearning.models.training import warm_up
from split_unlearning.transport.link import LinkError
from split_unlearning.transport.message import Array, Message
from split_unlearning.unlearning.stages import NO_REQUEST
from split_unlearning.unlearning.state_folder import StateFolder
from split_unlearning.unlearning.tensor_store import TensorStore

Method = TypeVar("Method", bound=Callable[..., Message])


def action(method: Method) -> Method:
    """Mark a client's method that an instruction may call by name."""
    method.is_action = True  # type: ignore[attr-defined]
    return method


class ActingClient(Owner, NumPyClient):
    """Acts on one message by calling the method that its action names.

    The method is marked with `action`; dashes in the action stand for underscores. The method takes
    the `Message` and returns the answer. A client declares the settings that it reads in
    `own_options`, if its strategy does not; their values are `options`.
    """

    def __init__(self, setting: ClientSetting) -> None:
        self.setting = setting
        self.training = setting.training
        self.options = self.filled(setting.options)
        self.client = -1
        self.phase = ""
        self.kept = ""
        self.left_out: int | None = None
        self.number = NO_REQUEST
        self.asked_again = False
        """Whether this message's request was acted upon before."""
        self.waited = 0.0
        """Seconds of this message in which the client waited for the server."""
        self.pretraining = 0.0
        """Seconds of this message in which the client trained alone."""

    @classmethod
    def check_options(cls, options: Options) -> None:
        """Refuse settings that do not go together, before anything starts.

        Raises
        ------
        UserError
            In one line that names the key, the value and what is allowed.
        """

    def get_properties(self, config: dict[str, Scalar]) -> dict[str, Scalar]:
        """Return this node's partition; the first question, asked while the server still starts."""
        warm_up()
        # Not all properties: the operator may have put anything among them.
        return {key: self.setting.properties[key] for key in ("partition-id", "num-partitions")}

    def fit(
        self, parameters: list[Array], config: dict[str, Scalar]
    ) -> tuple[list[Array], int, dict[str, Scalar]]:
        """Act on an instruction; the answer's tensors go back as parameters."""
        answer, samples = self._act(Message.unpack(parameters, config))
        arrays, fields = answer.pack()
        return arrays, samples, fields

    def evaluate(
        self, parameters: list[Array], config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Act on an instruction whose answer has scalars only."""
        answer, samples = self._act(Message.unpack(parameters, config))
        _, fields = answer.pack()
        return 0.0, samples, fields

    def _act(self, message: Message) -> tuple[Message, int]:
        self._open(message)
        started = time.perf_counter()
        answer = self._answer(message)
        answer.fields |= self._measured(time.perf_counter() - started - self.waited)
        return answer, len(self.holding.ids)

    def _open(self, message: Message) -> None:
        """Make the client's samples and state available to the action."""
        self.phase = str(message.fields["phase"])
        self.training.fix_kernels()
        clients = message.fields.get("clients", self.setting.properties["num-partitions"])
        self.become(message.integer("client"), int(str(clients)))
        self._attempt = str(message.fields.get("attempt", ""))
        if self._attempt and isinstance(self._store, StateFolder):
            self._store.check_attempt(str(message.fields["kept"]))
            self._store.begin(self._attempt)
            self._recall()

    def become(self, client: int, clients: int) -> None:
        """Be the client of this number, of so many: load its samples and its state."""
        self.client = client
        self.whole = self.setting.holding(client, clients)
        self._store = self.setting.store(client)
        self.state = TensorStore(self._store)
        self._recall()

    def _recall(self) -> None:
        self.forgotten = ForgottenSamples(self.state)
        self.holding = self._retained()

    def _answer(self, message: Message) -> Message:
        """Call the method that the action names, and write what it changed to disk."""
        try:
            if self._attempt or not isinstance(self._store, StateFolder):
                self.prepare(message)
            answer = self._method(message.action)(message)
            if isinstance(self._store, StateFolder):
                self._store.flush()
        except (UserError, ValueError, LinkError, TimeoutError):
            raise
        except Exception as error:
            # Flower passes on the text of an exception without its type, which many texts need.
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        return answer

    def _measured(self, seconds: float) -> dict[str, Scalar]:
        """Return the fields that every answer ends with: cost, digest and forgotten samples."""
        fields: dict[str, Scalar] = {"seconds": seconds, "device": name_of(device())}
        if self.pretraining:
            fields["pretrain-seconds"] = self.pretraining
        if self.kept:
            fields["digest"] = self.kept
        if self.left_out is not None:
            fields["left-out"] = self.left_out
            if self._attempt:
                fields["forgotten"] = self.forgotten.hashes(self.number).numpy().tobytes()
        return fields

    def prepare(self, message: Message) -> None:
        """Prepare for any action; by default nothing."""

    def _method(self, name: str) -> Callable[[Message], Message]:
        method = getattr(self, name.replace("-", "_"), None)
        if not getattr(method, "is_action", False):
            raise ValueError(f"{type(self).__name__} does not know the action {name!r}")
        return method  # type: ignore[return-value]

    def _retained(self) -> Holding:
        forgotten = self.forgotten.among(self.whole.ids)
        return self.whole.without(forgotten) if len(forgotten) else self.whole
