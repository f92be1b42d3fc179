"""Vanilla split learning, and forgetting by training everything again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from strategies.base import SplitStrategy
from strategies.script import Question, Script
from transport.message import Array, Message
from unlearning.exactness import derive_seed
from unlearning.request import Request


class Vanilla(SplitStrategy):
    """Clients take turns, epoch by epoch; every batch crosses the cut and a gradient comes back.

    With ``client-sync = none`` each client keeps its own segment (the SplitWiper paper's setting);
    with ``handoff`` one segment and its optimiser travel from client to client. To forget, every
    client starts again without the forgotten samples.
    """

    client = "clients.vanilla:VanillaClient"
    ignores = frozenset({"options", "splitfed-version"})

    def learn(self) -> Script:
        """Train for M epochs; within an epoch each client has one turn."""
        yield self.ask(self.clients, "start", shared=self.starts_shared)
        yield from self.train()

    def unlearn(self, requests: Mapping[int, Request]) -> Script:
        """Leave the forgotten samples out and train again, with every client."""
        yield self.ask_to_forget(requests, "leave-out")
        yield from self.learn()

    def changed_by(self, clients: Sequence[int]) -> Sequence[int]:
        """Return all clients: everybody trains again."""
        return self.clients

    @property
    def starts_shared(self) -> bool:
        """Whether all clients start from the same weights."""
        return self.hands_on

    @property
    def hands_on(self) -> bool:
        """Whether the client segment travels from client to client."""
        return self.client_sync == "handoff"

    def train(self) -> Script:
        """Run the turns of every epoch over the link."""
        self.server.initialise()
        link = self.server.open_link()
        carried: dict[str, Array] = {}
        handed_on = "segment momentum" if self.hands_on else ""
        for epoch in range(self.training.server_epochs):
            self.progress(f"epoch {epoch + 1} of {self.training.server_epochs}")
            for client in self.turns(epoch):
                turn = Message("train", {"epoch": epoch, "hand-on": handed_on, **link}, carried)
                replies = yield Question({client: turn})
                if self.hands_on:
                    carried = replies[0].message.tensors
        if self.hands_on:
            yield Question({client: Message("take", tensors=carried) for client in self.clients})
        self.server.close_link()

    def turns(self, epoch: int) -> list[int]:
        """Return the clients in the order of their turns, a seeded permutation."""
        generator = np.random.default_rng(derive_seed(self.training.seed, "turns", epoch))
        return [self.clients[position] for position in generator.permutation(len(self.clients))]
