"""SplitWiper: one-way, one-off (the SplitWiper paper, Algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.base import SplitStrategy
from strategies.script import Script
from unlearning.methods import NoUnlearning, Retrain, StagedMethod
from unlearning.request import Request


class SplitWiper(SplitStrategy):
    """Clients upload once; the server learns from its cache; only the requesting client redoes.

    Clients pre-train their segment alone, freeze it and send their smashed data once (one-off); the
    server trains on what it cached and sends no gradient back (one-way). To forget, the requesting
    client alone trains again without the forgotten samples and its shard is replaced: exact SISA
    unlearning, with one shard a client. A method that goes on from what was learned does so on the
    requesting client alone, which uploads again; the server always starts again.
    """

    client = "clients.splitwiper:SplitWiperClient"
    methods = (Retrain, StagedMethod)

    def learn(self) -> Script:
        """Algorithm 1."""
        yield from self.collect(self.ask(self.clients, "pretrain"))
        self.train_server()

    def unlearn(self, requests: Mapping[int, Request]) -> Script:
        """Algorithm 2: the other clients are not sent one message."""
        if isinstance(self.method, NoUnlearning):
            yield self.ask_to_forget(requests, "leave-out")
            return
        yield from self.collect(self.ask_to_forget(requests, "forget"))
        self.train_server()

    def train_server(self) -> None:
        """Initialise the server segment and train it for M epochs on the cache."""
        self.server.initialise()
        for epoch in range(self.training.server_epochs):
            self.progress(f"server epoch {epoch + 1} of {self.training.server_epochs}")
            self.server.train_on_cache(epoch)
