"""SplitWiper: one-way, one-off (the SplitWiper paper, Algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Option, Options, one_of, positive
from split_unlearning.foundations.text import whole_number
from split_unlearning.strategies.base import SplitStrategy, StrategySetting
from split_unlearning.strategies.script import Script
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.unlearning.methods import (
    NoUnlearning,
    Retrain,
    StagedMethod,
    UnlearningMethod,
)
from split_unlearning.unlearning.request import Request
from split_unlearning.unlearning.slices import dealt, epochs_of, first_touched, step_of
from split_unlearning.unlearning.stages import learning


class SplitWiper(SplitStrategy):
    """Clients upload once; the server learns from its cache; only the requesting client redoes.

    Clients pre-train their segment alone, freeze it and send their smashed data once (one-off); the
    server trains on what it cached and sends no gradient back (one-way). To forget, the requesting
    client alone trains again without the forgotten samples and its shard is replaced: exact SISA
    unlearning, with one shard a client. A method that goes on from what was learned does so on the
    requesting client alone, which uploads again; the server always starts again.

    With ``client-init=shared`` all client segments start from the same fresh weights, which follow
    from the seed alone: smashed data of different clients resemble each other more, and forgetting
    stays exact. The paper does not say which it means.

    With ``slices`` a client trains in steps and starts again from the step before the first slice
    that a request touches; with ``server-slices`` so does the server, each client's shard lying in
    one slice.
    """

    client = "split_unlearning.clients.splitwiper:SplitWiperClient"
    methods = (Retrain, StagedMethod)
    own_options: ClassVar = {
        "client-init": one_of(
            "own", ("own", "shared"), "fresh weights of client segments: each its own, or the same"
        ),
        "slices": positive(1, "slices of a client's samples, to retrain from the middle"),
        "server-slices": positive(1, "slices of the clients, for the server to do so"),
        "stable-clients": Option(
            "",
            "each client's number once, or empty",
            meaning="the clients, those least likely to ask first",
        ),
    }

    def __init__(self, setting: StrategySetting) -> None:
        super().__init__(setting)
        self.slices = _dealt(self.options, setting.num_clients or len(self.clients))

    @classmethod
    def check_options(cls, options: Options, method: UnlearningMethod) -> None:
        """Refuse slices where nothing starts from them again, and an order that is none."""
        slices = options.integer("slices")
        if slices > 1 and not isinstance(method, Retrain):
            allowed = f"1 (unlearning={options['unlearning']!r} goes on from the last step alone)"
            raise refuse("slices", slices, allowed)
        _stable_clients(options)

    @classmethod
    def check_clients(cls, options: Options, num_clients: int) -> None:
        """Refuse an order of other clients, and more slices than clients."""
        _dealt(options, num_clients)

    def learn(self) -> Script:
        """Algorithm 1."""
        yield from self.collect(self.ask(self.clients, "pretrain"))
        yield from self.train_server(first=0)

    def unlearn(self, requests: Mapping[int, Request]) -> Script:
        """Algorithm 2: the other clients are not sent one message."""
        if isinstance(self.method, NoUnlearning):
            yield self.ask_to_forget(requests, "leave-out")
            return
        yield from self.collect(self.ask_to_forget(requests, "forget"))
        yield from self.redo_for(requests)

    def drop(self, clients: Collection[int]) -> Script:
        """Remove whole shards; whose they were need not be there."""
        for client in clients:
            self.server.call(Shards.drop, client)
        yield from self.redo_for(clients)

    @classmethod
    def needed(cls, clients: Sequence[int], asking: Collection[int]) -> list[int]:
        """Return the clients that ask: no other is needed."""
        return sorted(asking)

    def redo_for(self, clients: Collection[int]) -> Script:
        """Train the server segment again from the first slice with a shard of these."""
        first = first_touched(self.slices, clients)
        self.redone = {
            "shards": sorted(clients),
            "client slices": {
                str(client): list(range(start + 1, self.options.integer("slices") + 1))
                for client, start in sorted(self.heard.first_slices.items())
            },
            "server slices": list(range(first + 1, len(self.slices) + 1)),
        }
        yield from self.train_server(first)

    def train_server(self, first: int) -> Script:
        """Train the server segment on the cache, from a slice on; from the first, afresh."""
        if first == 0:
            self.server.call(ServerModel.initialise)
        else:
            self.server.call(ServerModel.restore_checkpoint, first - 1)
        epochs = epochs_of([*map(len, self.slices)], self.training.server_epochs)
        for number in range(first, len(self.slices)):
            clients = [client for held in self.slices[: number + 1] for client in held]
            step = step_of(learning(epochs[number]), number, len(self.slices))
            self.server.call(ServerModel.begin, step)
            for epoch in range(step.epochs):
                self.progress(f"server, {step.name}: epoch {epoch + 1} of {step.epochs}")
                self.server.call(Shards.train, epoch, clients)
                yield from self.end_epoch()
            if number + 1 < len(self.slices):
                self.server.call(ServerModel.keep_checkpoint, number)


def _stable_clients(options: Options) -> list[int]:
    """Return the clients that the user named, those least likely to ask first."""
    text = options.text("stable-clients")
    numbers = [whole_number(word.strip()) for word in text.split(",") if text]
    if {*numbers} != {*range(len(numbers))}:
        allowed = "each client's number once, separated by commas, or empty"
        raise refuse("stable-clients", text, allowed)
    return [number for number in numbers if number is not None]


def _dealt(options: Options, num_clients: int) -> list[list[int]]:
    """Deal the clients to the server's slices, those least likely to ask first."""
    named = _stable_clients(options) or list(range(num_clients))
    if len(named) != num_clients:
        allowed = f"each number from 0 to {num_clients - 1} once, or empty"
        raise refuse("stable-clients", options["stable-clients"], allowed)
    return dealt(named, options.integer("server-slices"))
