"""Gradient-cache projection: learn as vanilla does, and keep every gradient to take it back out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from strategies.base import StrategySetting
from strategies.script import Question, Script
from strategies.vanilla import Vanilla
from transport.message import Array, Message, Scalar
from unlearning.gradient_projection.methods import GradientProjection as SequentialMethod
from unlearning.gradient_projection.methods import PaperProjection, ProjectionMethod
from unlearning.methods import Retrain
from unlearning.request import Request
from unlearning.stages import Stage, learning


class GradientProjection(Vanilla):
    """Vanilla split learning with a cache of gradients on each side of the cut.

    The server caches the gradients of its own steps, each client those of its own, and none leaves
    its side. To forget, the clients that asked say which steps held forgotten samples, and how
    many; both sides project these steps' forgotten shares along the retained ones
    (`unlearning.gradient_projection.sequential`), or in the authors' form at once
    (`unlearning.gradient_projection.one_shot`), and everybody trains on for a while without them.
    Requests of one run are one union: each goes back to the weights that were learned. With a
    state-dir nothing may remain of what a committed request has forgotten: the caches are then
    rewritten (`unlearning.gradient_projection.rewriting`), the fine-tuning is cached too, and the
    next request goes on from there.

    With ``client-sync = handoff`` what is to be added to the client segment travels through the
    turns in the order of the steps; with ``none`` each client that asked works on its own.
    "Tackling Sequential Entanglement in Split Unlearning" (MIPR 2025) has the second.
    """

    client = "clients.gradient_projection:GradientProjectionClient"
    methods = (Retrain, ProjectionMethod)
    uses = frozenset({"client-sync"})

    def __init__(self, setting: StrategySetting) -> None:
        super().__init__(setting)
        self._run = ""
        self._first, self._stage = 0, 0
        self._touched: dict[int, dict[int, int]] = {}

    def learn(self) -> Script:
        """Train as vanilla does; cache every gradient if that is how to forget."""
        yield from self.start()
        self.server.initialise()
        stage = learning(self.training.server_epochs)
        if not isinstance(self.method, ProjectionMethod):
            yield from self.train(stage, self.clients)
            return
        self._run = self.server.record_gradients(
            self.method.codec, self.method.every, self._lasting
        )
        self._first, self._stage = 0, 0
        yield from self.train(stage, self.clients)
        self.server.keep_learned(self._lasting)

    @property
    def _lasting(self) -> bool:
        """Whether what is forgotten is committed to a folder, for later requests to go on from."""
        return "attempt" in self.addressing

    def told(self, stage: Stage, progress: float) -> dict[str, Scalar]:
        """Tell a turn of learning where its steps stand, and one of fine-tuning its step size."""
        if not isinstance(self.method, ProjectionMethod):
            return {}
        first = self._first + self.heard.batches
        cached: dict[str, Scalar] = {
            "cache-run": self._run,
            "first-step": first,
            "cache-stage": self._stage,
        }
        if stage.name == learning(1).name:
            return cached
        rate = 1 - (1 - self.method.final_rate) * progress
        self.server.scale_rate(rate)
        return {"rate": rate, **(cached if self._lasting else {})}

    def unlearn(self, requests: Mapping[int, Request]) -> Script:
        """Project what was forgotten out of both sides, then train on without it."""
        if not isinstance(self.method, ProjectionMethod):
            yield from super().unlearn(requests)
            return
        if self._lasting:
            # What requests before this one meant is in no cache by now.
            self._touched = {}
        if not self._run:
            self._run = self.server.reopen_gradients(
                self.method.codec, self.method.every, self._lasting
            )
        yield self.ask_to_forget(requests, "leave-out")
        replies = yield self.ask(requests, "locate", cache_run=self._run)
        for reply in replies:
            steps, counts = (reply.message.tensors[name] for name in ("steps", "counts"))
            self._touched[reply.client] = dict(zip(steps.tolist(), counts.tolist(), strict=True))
        self.approximations = self.method.approximations(self._lasting)
        if isinstance(self.method, SequentialMethod):
            yield from self._project(self.method)
        elif isinstance(self.method, PaperProjection):
            yield from self._take_step(self.method)
        stage = self.method.fine_tuning(self.training.server_epochs)
        yield self.ask(self.clients, "begin", stage=stage.name)
        self.server.begin(stage)
        if self._lasting:
            self._first, self._stage = self.server.record_on()
            if self._stage > 1:
                self.approximations.append(
                    "an earlier request had rewritten the gradient caches: what these samples gave "
                    "was taken at weights that were rebuilt without what it forgot"
                )
        about = min(request.number for request in requests.values())
        yield from self.train(stage, self.clients, about, list(requests))
        if self._lasting:
            self.server.keep_learned(self._lasting)

    def _project(self, method: SequentialMethod) -> Script:
        """Go through the cached steps on both sides, in order."""
        steps, counts = self._forgotten_steps()
        self.server.begin_projection(steps, counts, method.shares, method.beta, self._lasting)
        link = self.server.open_link()
        moved = self.server.step_coefficients()
        removed: dict[str, Array] = {}
        fixed: dict[str, Scalar] = {
            "cache-run": self._run,
            "hands-on": self.hands_on,
            "lasting": self._lasting,
            **link,
        }
        for client, first, stop in self._parts(method, steps):
            self.progress(f"gradient projection: client {client}, step {first} of {len(moved)}")
            asked = Message(
                "project",
                {"first-step": first, "stop-step": stop, **fixed},
                {"coefficients": moved[first:stop], **({} if method.local else removed)},
            )
            replies = yield Question({client: asked})
            if method.local:
                removed = _sum(removed, replies[0].message.tensors)
            else:
                removed = replies[0].message.tensors
        self.server.finish_projection()
        self.server.close_link()
        yield from self._apply(removed)

    def _parts(
        self, method: SequentialMethod, steps: NDArray[np.int64]
    ) -> Iterator[tuple[int, int, int]]:
        """Yield who is asked for which of the steps: before the first touched one none."""
        turns = self.server.gradient_turns()
        start, stop = int(steps[0]), turns[-1][2]
        asking = [client for client in self.clients if self._touched.get(client)]
        if self.hands_on and not method.local:
            yield from (turn for turn in turns if turn[2] > start)
        elif method.shares == "whole" or len(asking) == 1:
            # Nobody waits for anybody: one message a client.
            yield from ((client, 0, stop) for client in asking)
        else:
            # The server goes through the steps once, and each takes its turn in it.
            yield from (turn for turn in turns if turn[0] in asking and turn[2] > start)

    def _take_step(self, method: PaperProjection) -> Script:
        """Move both sides at once, as the authors do."""
        steps, _ = self._forgotten_steps()
        self.server.take_projected_step(
            steps,
            method.variant,
            method.weighting,
            method.settings.projection_devaluation,
            method.settings.projection_edge_boost,
        )
        asked = Message(
            "take-step",
            {"cache-run": self._run, "hands-on": self.hands_on},
            {"steps": steps},
        )
        replies = yield Question(dict.fromkeys(self.clients, asked))
        removed: dict[str, Array] = {}
        for reply in replies:
            removed = _sum(removed, reply.message.tensors)
        yield from self._apply(removed)

    def _apply(self, removed: Mapping[str, Array]) -> Script:
        """Have every client go on from what it learned, less what is to be removed."""
        told: dict[str, Scalar] = {"cache-run": self._run, "lasting": self._lasting}
        yield Question({client: Message("apply", told, dict(removed)) for client in self.clients})

    def _forgotten_steps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the steps that held samples that are forgotten by now, in order, and how many."""
        counts = {step: n for touched in self._touched.values() for step, n in touched.items()}
        steps = sorted(counts)
        return np.array(steps, dtype=np.int64), np.array([counts[step] for step in steps])


def _sum(left: Mapping[str, Array], right: Mapping[str, Array]) -> dict[str, Array]:
    """Return the sum of tensors by name; what is missing is zero."""
    total = dict(left)
    for name, array in right.items():
        total[name] = np.add(total[name], array) if name in total else array
    return total
