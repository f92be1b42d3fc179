"""The server's end of the link: a frame is answered by the part that marked a method for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.part import Answer, Parts, ServerPart
from split_unlearning.transport.ledger import Ledger, Row
from split_unlearning.transport.link import Caller
from split_unlearning.transport.socket_link import LinkServer


class ServerLink(ServerPart):
    """Hosts the link that clients send frames on, and counts what crosses it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._model, self._clock = parts[ServerModel], parts[Clock]
        self._ledger = Ledger()
        self._server: LinkServer | None = None
        self._answers: dict[str, Answer] = {}
        for part in parts:
            if taken := sorted(self._answers.keys() & part.frames().keys()):
                raise TypeError(f"{type(part).__name__} answers frames of another part: {taken}")
            self._answers |= part.frames()

    def open(self) -> dict[str, str]:
        """Host the link; return what a client needs to join it, as fields of an instruction."""
        if self._server is None:
            self._server = LinkServer(self.answer, self._ledger, host=self.setting.host)
        return self._server.endpoint.to_fields()

    def close(self) -> None:
        """Stop hosting the link."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def answer(
        self, caller: Caller, tensors: dict[str, torch.Tensor], fields: Mapping[str, str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Answer one frame: its one field names it and says more; without a field it is a batch.

        Raises
        ------
        ValueError
            If no part answers such frames, or the tensors do not fit.
        """
        name, value = next(iter(fields.items())) if fields else ("batch", "")
        if len(fields) > 1 or name not in self._answers:
            known = ", ".join(sorted(self._answers))
            raise ValueError(f"a frame has one field, of {known}, not {sorted(fields)}")
        with self._model.turn(caller.client):
            # Each link is served by a thread of its own, which inherits no number of threads.
            self.training.fix_kernels()
            with self._clock.running() as lap:
                reply = self._answers[name](caller.client, tensors, value)
        self._ledger.record(caller.client, caller.phase, server_seconds=lap.seconds)
        return {name: tensor.cpu() for name, tensor in reply.items()}, {}

    def take_ledger(self) -> list[Row]:
        """Return what crossed the link since the last call."""
        return self._ledger.take()
