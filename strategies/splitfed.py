"""SplitFed: clients side by side, and an average at the end of each round."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch

from split_unlearning.foundations.options import one_of
from split_unlearning.models.averaging import weighted_average
from split_unlearning.strategies.script import Question, Reply, Script
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.vanilla import PROTECTIONS, Vanilla
from split_unlearning.transport.message import Array, Message, Scalar
from split_unlearning.unlearning.stages import NO_REQUEST, Stage


class SplitFed(Vanilla):
    """Every client starts a round from one segment; the segments are averaged when it ends.

    Version 1: the clients train in parallel, each against a copy of the server segment of its own,
    and the copies are averaged too. Version 2: one server segment, which serves one client after
    the other, in a seeded order. Clients weigh as many samples as they visited; optimisers start
    anew in each round. To forget, everybody starts again without the forgotten samples, or rounds
    of a method's stages follow. With ``init-from = splitwiper`` each client begins the first round
    with its own pre-trained segment.
    """

    client = "split_unlearning.clients.vanilla:VanillaClient"
    own_options: ClassVar = {
        "splitfed-version": one_of(
            1, (1, 2), "a copy of the server segment for each client, or one for all"
        )
    }
    ignores = PROTECTIONS | {"client-sync", "skip-absent"}
    one_client_segment = True

    @property
    def starts_shared(self) -> bool:
        """Return True: a round starts from one segment."""
        return True

    def train(
        self,
        stage: Stage,
        clients: Sequence[int],
        about: int = NO_REQUEST,
        asking: Collection[int] = (),
    ) -> Script:
        """Run a stage's epochs as rounds; each client trains for one epoch a round."""
        link = self.server.call(ServerLink.open)
        mean: dict[str, Array] = {}
        fixed: dict[str, Scalar] = {"stage": stage.name, "about": about, "hand-on": "segment"}
        for epoch in range(stage.epochs):
            self.progress(f"{stage.name}: round {epoch + 1} of {stage.epochs}")
            turn = Message("train", {"epoch": epoch, **fixed, **link}, mean)
            if self.options["splitfed-version"] == 1:
                self.server.call(ServerModel.branch, clients, epoch)
                replies = yield Question(dict.fromkeys(clients, turn))
                self.server.call(
                    ServerModel.merge, {reply.client: _weight(reply) for reply in replies}
                )
            else:
                replies = []
                for client in self.turns(stage, epoch, clients):
                    replies += yield Question({client: turn})
            mean = _mean(sorted(replies, key=lambda reply: reply.client))
            yield from self.end_epoch(partial(self.hand_out, mean))
        yield self.hand_out(mean)
        self.server.call(ServerLink.close)
        self.server.call(ServerModel.end)


def _weight(reply: Reply) -> int:
    return reply.message.integer("samples")


def _mean(replies: list[Reply]) -> dict[str, Array]:
    """Return the mean of the client segments, as the tensors that `train` and `take` take over."""
    states: list[Mapping[str, torch.Tensor]] = [
        {name: torch.from_numpy(array.copy()) for name, array in reply.message.tensors.items()}
        for reply in replies
    ]
    mean = weighted_average(states, [_weight(reply) for reply in replies])
    return {name: tensor.numpy() for name, tensor in mean.items()}
