"""SplitFed: clients side by side, and an average at the end of each round."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from models.averaging import weighted_average
from strategies.script import Question, Reply, Script
from strategies.vanilla import Vanilla
from transport.message import Array, Message


class SplitFed(Vanilla):
    """Every client starts a round from one segment; the segments are averaged when it ends.

    Version 1: the clients train in parallel, each against a copy of the server segment of its own,
    and the copies are averaged too. Version 2: one server segment, which serves one client after
    the other, in a seeded order. Clients weigh as many samples as they hold; optimisers start anew
    in each round. To forget, everybody starts again without the forgotten samples.
    """

    client = "clients.vanilla:VanillaClient"
    ignores = frozenset({"client-sync", "options"})

    @property
    def starts_shared(self) -> bool:
        """Return True: a round starts from one segment."""
        return True

    def train(self) -> Script:
        """Run M rounds; each client trains for one epoch a round."""
        self.server.initialise()
        link = self.server.open_link()
        mean: dict[str, Array] = {}
        for epoch in range(self.training.server_epochs):
            self.progress(f"round {epoch + 1} of {self.training.server_epochs}")
            turn = Message("train", {"epoch": epoch, "hand-on": "segment", **link}, mean)
            if self.splitfed_version == 1:
                self.server.branch(self.clients, epoch)
                replies = yield Question(dict.fromkeys(self.clients, turn))
                self.server.merge({reply.client: _weight(reply) for reply in replies})
            else:
                replies = []
                for client in self.turns(epoch):
                    replies += yield Question({client: turn})
            mean = _mean(sorted(replies, key=lambda reply: reply.client))
        yield Question(dict.fromkeys(self.clients, Message("take", tensors=mean)))
        self.server.close_link()


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
