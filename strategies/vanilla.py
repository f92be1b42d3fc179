"""Vanilla split learning: every batch crosses the cut, and so does every step of forgetting."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Options, flag, one_of
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.script import Question, Script
from split_unlearning.strategies.server.gradient_noise import GradientNoise
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.transport.message import Array, Message, Scalar
from split_unlearning.unlearning.methods import Retrain, StagedMethod, UnlearningMethod
from split_unlearning.unlearning.request import Request
from split_unlearning.unlearning.stages import NO_REQUEST, Stage, learning

PROTECTIONS = frozenset({"label-mechanism", "label-epsilon", *GradientNoise.own_options})
"""The settings of the published protections of labels, of vanilla alone."""


class Vanilla(SplitStrategy):
    """Clients take turns, epoch by epoch; every batch crosses the cut and a gradient comes back.

    With ``client-sync = none`` each client keeps its own segment (the SplitWiper paper's setting);
    with ``handoff`` one segment and its optimiser travel from client to client. To forget, every
    client starts again without the forgotten samples, or a method's stages go on from what was
    learned: those on forgotten samples with the clients that asked, the others with everybody.

    With ``skip-absent`` an epoch goes on without a client that does not answer, but for the steps
    that forget on a client that asked; what the server segment has learned of its turn until then
    stays. Retraining that skipped a turn is not exact.

    Two published protections of labels are options. With ``label-mechanism = rr-with-prior``
    clients tell labels by randomised response, which protects them from the server. With
    ``gradient-noise`` the server perturbs the gradients that it returns: that is made for a party
    without labels on the other side of the cut, and there is none here
    (`strategies.server.gradient_noise`).
    """

    client = "split_unlearning.clients.vanilla:VanillaClient"
    methods: ClassVar[tuple[type[UnlearningMethod], ...]] = (Retrain, StagedMethod)
    own_options: ClassVar = {
        "client-sync": one_of(
            "none", ("none", "handoff"), "each client keeps its segment, or hands it on"
        ),
        "init-from": one_of(
            "fresh",
            ("fresh", "splitwiper"),
            "what client segments start from: fresh weights, or SplitWiper's pre-trained ones",
        ),
        "skip-absent": flag("an epoch goes on without a client that does not answer"),
        **GradientNoise.own_options,
    }

    @classmethod
    def check_options(cls, options: Options, method: UnlearningMethod) -> None:
        """Refuse clients that may be absent from a state-dir, and noise that lacks labels."""
        if options["skip-absent"] and options["state-dir"]:
            raise refuse("skip-absent", True, "false (with state-dir every client keeps its part)")
        noise = GradientNoise.of(options)
        if noise is None or not noise.needs_labels or not isinstance(method, StagedMethod):
            return
        if not all("labels" in stage.objective.sends for stage in method.stages()):
            allowed = f"none, max-norm (unlearning={options['unlearning']!r} sends no labels)"
            raise refuse("gradient-noise", noise.kind, allowed)

    @classmethod
    def noise_at_cut(cls, options: Options) -> GradientNoise | None:
        """Return the noise that settings ask for."""
        return GradientNoise.of(options)

    @classmethod
    def check_inputs(cls, options: Options, inputs: str) -> None:
        """Refuse a segment that is handed on to clients with inputs of another shape."""
        super().check_inputs(options, inputs)
        if options["client-sync"] == "handoff":
            raise refuse("client-sync", "handoff", f"none ({inputs})")

    @property
    def skips_absent(self) -> bool:
        """Whether an epoch goes on without a client that does not answer."""
        return self.options.flag("skip-absent")

    def learn(self) -> Script:
        """Train for M epochs; within an epoch each client has one turn."""
        yield from self.start()
        self.server.call(ServerModel.initialise)
        yield from self.train(learning(self.training.server_epochs), self.clients)

    def unlearn(self, requests: Mapping[int, Request]) -> Script:
        """Leave the forgotten samples out; train again, or go through the method's stages."""
        yield self.ask_to_forget(requests, "leave-out")
        if not isinstance(self.method, StagedMethod):
            yield from self.learn()
            return
        about = min(request.number for request in requests.values())
        for stage in self.method.stages():
            clients = list(requests) if stage.samples == "forgotten" else self.clients
            yield self.ask(clients, "begin", stage=stage.name)
            self.server.call(ServerModel.begin, stage)
            yield from self.train(stage, clients, about, list(requests))

    def start(self) -> Script:
        """Have every client begin with the segment that it is to begin with."""
        pretraining: Sequence[int] = ()
        if self.options["init-from"] == "splitwiper":
            # A segment that travels is that of whom it begins with.
            first = self.turns(learning(1), 0, self.clients)[:1]
            pretraining = first if self.hands_on else self.clients
        shared = self.starts_shared
        yield Question(
            {
                client: Message("start", {"shared": shared, "pretrained": client in pretraining})
                for client in self.clients
            }
        )

    @property
    def starts_shared(self) -> bool:
        """Whether all clients start from the same weights."""
        return self.hands_on

    @property
    def hands_on(self) -> bool:
        """Whether the client segment travels from client to client."""
        return self.options["client-sync"] == "handoff"

    def train(
        self,
        stage: Stage,
        clients: Sequence[int],
        about: int = NO_REQUEST,
        asking: Collection[int] = (),
    ) -> Script:
        """Run the turns of a stage's epochs over the link; the server segment has begun the stage.

        `about` is the number of the request whose samples the stage means by forgotten ones,
        `asking` are the clients that hold them.
        """
        link = self.server.call(ServerLink.open)
        carried: dict[str, Array] = {}
        handed_on = "segment momentum" if self.hands_on else ""
        fixed: dict[str, Scalar] = {"stage": stage.name, "about": about, "hand-on": handed_on}

        def may_skip(client: int) -> bool:
            # A request must not pass as done without those that hold what is to be forgotten.
            needed = stage.samples != "retained" and client in asking
            return self.skips_absent and not needed

        for epoch in range(stage.epochs):
            self.progress(f"{stage.name}: epoch {epoch + 1} of {stage.epochs}")
            for place, client in enumerate(self.turns(stage, epoch, clients)):
                progress = (epoch + (place + 0.5) / len(clients)) / stage.epochs
                fields = {"epoch": epoch, **fixed, **self.turn_fields(stage, progress), **link}
                turn = Message("train", fields, carried)
                replies = yield Question({client: turn}, optional=may_skip(client))
                if not replies:
                    # Should it come after all, its frames must not mix with the next client's.
                    self.server.call(ServerLink.close)
                    link = self.server.call(ServerLink.open)
                elif self.hands_on:
                    carried = replies[0].message.tensors
            hand_out = partial(self.hand_out, carried) if self.hands_on else None
            yield from self.end_epoch(hand_out)
        if self.hands_on:
            yield self.hand_out(carried)
        self.server.call(ServerLink.close)
        self.server.call(ServerModel.end)

    def hand_out(self, carried: dict[str, Array]) -> Question:
        """Have every client take over the segment that has travelled."""
        taken = {client: Message("take", tensors=carried) for client in self.reachable}
        return Question(taken, optional=self.skips_absent)

    def turn_fields(self, stage: Stage, progress: float) -> dict[str, Scalar]:
        """Return further fields of a turn; `progress` is where in the stage its middle lies."""
        return {}

    def turns(self, stage: Stage, epoch: int, clients: Sequence[int]) -> list[int]:
        """Return clients in the order of their turns, a seeded permutation of all."""
        seed = derive_seed(self.training.seed, "turns", stage.name, epoch)
        places = np.random.default_rng(seed).permutation(len(self.clients))
        return [self.clients[place] for place in places if self.clients[place] in clients]
