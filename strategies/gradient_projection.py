"""Gradient-cache projection: learn as vanilla does, and keep every gradient to take it back out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from split_unlearning.strategies.base import StrategySetting
from split_unlearning.strategies.script import Question, Script
from split_unlearning.strategies.server.gradient_projection import GradientCaches
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.vanilla import PROTECTIONS, Vanilla
from split_unlearning.transport.message import Array, Message, Scalar
from split_unlearning.unlearning.gradient_projection.methods import (
    GradientProjection,
    PaperProjection,
    ProjectionMethod,
)
from split_unlearning.unlearning.gradient_projection.sequential import stand_ins_of
from split_unlearning.unlearning.methods import Retrain, UnlearningMethod
from split_unlearning.unlearning.request import Request
from split_unlearning.unlearning.stages import NO_REQUEST, Stage, learning


class CachingVanilla(Vanilla):
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

    A client that is away while others forget is gone past: what it gave stays, nothing is projected
    off it, and it does not train on. A segment that was handed on waits for it with the server.

    With ``client-sync = handoff`` what is to be added to the client segment travels through the
    turns in the order of the steps; with ``none`` each client that asked works on its own.
    "Tackling Sequential Entanglement in Split Unlearning" (MIPR 2025) has the second.
    """

    client = "split_unlearning.clients.gradient_projection:GradientProjectionClient"
    methods = (Retrain, ProjectionMethod)
    server_parts = (GradientCaches,)
    ignores = PROTECTIONS | {"init-from", "skip-absent"}

    def __init__(self, setting: StrategySetting) -> None:
        super().__init__(setting)
        self._run = ""
        self._first, self._stage = 0, 0
        self._touched: dict[int, dict[int, int]] = {}
        self._carried: dict[str, Array] = {}

    def learn(self) -> Script:
        """Train as vanilla does; cache every gradient if that is how to forget."""
        yield from self.start()
        self.server.call(ServerModel.initialise)
        stage = learning(self.training.server_epochs)
        if not isinstance(self.method, ProjectionMethod):
            yield from self.train(stage, self.clients)
            return
        self._run = self.server.call(
            GradientCaches.record, self.method.codec, self.method.every, self._lasting
        )
        self._first, self._stage = 0, 0
        yield from self.train(stage, self.clients)
        self.server.call(GradientCaches.learned, self._lasting)

    @property
    def _lasting(self) -> bool:
        """Whether what is forgotten is committed to a folder, for later requests to go on from."""
        return "attempt" in self.addressing

    def turn_fields(self, stage: Stage, progress: float) -> dict[str, Scalar]:
        """Return where the steps of a turn of learning stand, or the step size of fine-tuning."""
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
        self.server.call(GradientCaches.scale_rate, rate)
        return {"rate": rate, **(cached if self._lasting else {})}

    def unlearn(self, requests: Mapping[int, Request]) -> Script:
        """Project what was forgotten out of both sides, then train on without it."""
        if not isinstance(self.method, ProjectionMethod):
            yield from super().unlearn(requests)
            return
        if self._lasting:
            # What requests before this one meant is in no cache by now.
            self._touched = {}
        yield from self._take_up(self.method)
        yield self.ask_to_forget(requests, "leave-out")
        replies = yield self.ask(requests, "locate", cache_run=self._run)
        for reply in replies:
            steps, counts = (reply.message.tensors[name] for name in ("steps", "counts"))
            self._touched[reply.client] = dict(zip(steps.tolist(), counts.tolist(), strict=True))
        self.approximations = self._approximations(self.method)
        if isinstance(self.method, GradientProjection):
            forgotten = self._forgotten_steps()
            asking = [client for client in self.clients if self._touched.get(client)]
            parts = self._parts(self.method, asking, min(forgotten))
            yield from self._project(self.method, forgotten, parts)
        elif isinstance(self.method, PaperProjection):
            yield from self._take_step(self.method)
        about = min(request.number for request in requests.values())
        yield from self._train_on(self.method, about, list(requests))

    @classmethod
    def can_drop(cls, method: type[UnlearningMethod]) -> bool:
        """Say yes of the recursion: its caches are kept, and the server's has every client's steps.

        What the authors' form takes away is no part of a cache, and retraining has none.
        """
        return issubclass(method, GradientProjection)

    @classmethod
    def can_miss_clients(cls, method: type[UnlearningMethod]) -> bool:
        """Say yes of the recursion: what it has not projected off can be left as it is."""
        return issubclass(method, GradientProjection)

    @classmethod
    def needed_to_drop(cls, clients: Sequence[int]) -> list[int]:
        """Return all clients that are left: they train on."""
        return list(clients)

    def drop(self, clients: Collection[int]) -> Script:
        """Project out all that some clients ever gave, as far as it lies with others.

        The server has the gradients of their steps, which are forgotten as a whole. What moved the
        client segments was theirs, and is gone with them: nothing where each has a segment of its
        own, and nothing to be had where one is handed on, unless others' gradients stand for it.
        """
        method = self.method
        assert isinstance(method, GradientProjection)
        self.clients = [client for client in self.clients if client not in clients]
        yield from self._take_up(method)
        lost = self.server.call(GradientCaches.steps_of, clients)
        self.approximations = self._approximations(method)
        stand_ins: dict[int, tuple[float, float]] = {}
        if self.hands_on:
            self.approximations.append(
                "what the dropped clients gave the client segment was "
                + (
                    "rounded to the nearest gradients of others"
                    if method.rounds_lost
                    else "not taken back: their gradients are gone"
                )
            )
            if method.rounds_lost:
                stand_ins = self._stand_ins(method, lost)
        if lost:
            counts = {step: samples for step, (samples, _) in lost.items()}
            parts = self._parts(method, self.reachable, min(stand_ins)) if stand_ins else ()
            yield from self._project(method, counts, parts, stand_ins)
        yield from self._train_on(method)

    def _stand_ins(
        self, method: ProjectionMethod, lost: Mapping[int, tuple[int, int]]
    ) -> dict[int, tuple[float, float]]:
        """Round the lost steps to those of the clients that are there."""
        left = [
            step
            for client, first, stop in self.server.call(GradientCaches.turns)
            for step in range(first, stop)
            if client in self.reachable and step % method.every == 0
        ]
        moved = self.server.call(GradientCaches.coefficients)
        amounts = {
            step: float(moved[step]) * samples / size for step, (samples, size) in lost.items()
        }
        return stand_ins_of(amounts, left)

    def _take_up(self, method: ProjectionMethod) -> Script:
        """Go on from what the run before left: the server's cache, and who was away then."""
        if not self._run:
            self._run = self.server.call(
                GradientCaches.reopen, method.codec, method.every, self._lasting
            )
        if handed_on := self.server.call(GradientCaches.client_segment):
            yield Question({one: Message("take", tensors=handed_on) for one in self.reachable})

    def _approximations(self, method: ProjectionMethod) -> list[str]:
        """Return what of a forgetting is approximate, a line each; absent clients count."""
        lines = method.approximations(self._lasting)
        for client in self._away:
            lines += [
                f"client {client} was away: nothing was projected off the gradients of its steps "
                "where they moved a client segment, and it did not train on",
                f"client {client} holds weights that had seen what is forgotten until it takes "
                "part again",
            ]
        return lines

    @property
    def _away(self) -> list[int]:
        return [client for client in self.clients if client not in self.reachable]

    def _project(
        self,
        method: GradientProjection,
        counts: Mapping[int, int],
        parts: Iterable[tuple[int, int, int]],
        stand_ins: Mapping[int, tuple[float, float]] = MappingProxyType({}),
    ) -> Script:
        """Go through the cached steps on both sides, in order.

        `counts` says which steps hold forgotten samples, and how many; `parts` which clients go
        through which of their steps, from the first up to the last; `stand_ins` is as in
        `SequentialProjection`, over the steps of all clients.
        """
        self.server.call(GradientCaches.begin, counts, method.shares, method.beta, self._lasting)
        link = self.server.call(ServerLink.open)
        moved = self.server.call(GradientCaches.coefficients)
        removed: dict[str, Array] = {}
        # Where the part before ended: what it carries fades over steps that nobody goes through.
        left: dict[str, Scalar] = {}
        fixed: dict[str, Scalar] = {
            "cache-run": self._run,
            "hands-on": self.hands_on,
            "lasting": self._lasting,
            **link,
        }
        for client, first, stop in parts:
            self.progress(f"gradient projection: client {client}, step {first} of {len(moved)}")
            tensors = {"coefficients": moved[first:stop], **({} if method.local else removed)}
            inside = {step: stand_ins[step] for step in stand_ins if first <= step < stop}
            if inside:
                tensors["stand-ins"] = np.array([*inside], dtype=np.int64)
                tensors["amounts"] = np.array([*inside.values()])
            fields = {"first-step": first, "stop-step": stop, **fixed, **left}
            asked = Message("project", fields, tensors)
            replies = yield Question({client: asked})
            if method.local:
                removed = _sum(removed, replies[0].message.tensors)
            else:
                removed = replies[0].message.tensors
                left = {"left-before": stop, "left-stage": replies[0].message.fields["stage"]}
        self.server.call(GradientCaches.finish)
        self.server.call(ServerLink.close)
        yield from self._apply(removed)

    def _train_on(
        self, method: ProjectionMethod, about: int = NO_REQUEST, asking: Collection[int] = ()
    ) -> Script:
        """Have everybody train on for a while, without what is forgotten."""
        stage = method.fine_tuning(self.training.server_epochs)
        yield self.ask(self.reachable, "begin", stage=stage.name)
        self.server.call(ServerModel.begin, stage)
        if self._lasting:
            self._first, self._stage = self.server.call(GradientCaches.go_on)
            if self._stage > 1:
                self.approximations.append(
                    "an earlier request had rewritten the gradient caches: what these samples gave "
                    "was taken at weights that were rebuilt without what it forgot"
                )
        yield from self.train(stage, self.reachable, about, asking)
        if self._lasting:
            self.server.call(GradientCaches.learned, self._lasting)
            self.server.call(
                GradientCaches.keep_client_segment, self._carried if self._away else {}
            )

    def hand_out(self, carried: dict[str, Array]) -> Question:
        """Have every client that is there take over the segment that has travelled."""
        self._carried = carried
        return super().hand_out(carried)

    def _parts(
        self, method: GradientProjection, asking: Sequence[int], start: int
    ) -> Iterator[tuple[int, int, int]]:
        """Yield a client and the steps that it is asked for, none before the first touched step."""
        # A client that was dropped or is away cannot be asked.
        turns = [
            turn for turn in self.server.call(GradientCaches.turns) if turn[0] in self.reachable
        ]
        stop = turns[-1][2]
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
        steps = list(self._forgotten_steps())
        self.server.call(
            GradientCaches.take_step,
            steps,
            method.variant,
            method.weighting,
            method.options.number("projection-devaluation"),
            method.options.number("projection-edge-boost"),
        )
        asked = Message(
            "take-step",
            {"cache-run": self._run, "hands-on": self.hands_on},
            {"steps": np.array(steps, dtype=np.int64)},
        )
        replies = yield Question(dict.fromkeys(self.reachable, asked))
        removed: dict[str, Array] = {}
        for reply in replies:
            removed = _sum(removed, reply.message.tensors)
        yield from self._apply(removed)

    def _apply(self, removed: Mapping[str, Array]) -> Script:
        """Have every client go on from what it learned, less what is to be removed."""
        fields: dict[str, Scalar] = {"cache-run": self._run, "lasting": self._lasting}
        apply = Message("apply", fields, dict(removed))
        yield Question(dict.fromkeys(self.reachable, apply))

    def _forgotten_steps(self) -> dict[int, int]:
        """Return the steps that held samples that are forgotten by now, in order, and how many."""
        counts = {step: n for touched in self._touched.values() for step, n in touched.items()}
        return dict(sorted(counts.items()))


def _sum(left: Mapping[str, Array], right: Mapping[str, Array]) -> dict[str, Array]:
    """Return the sum of tensors by name; what is missing is zero."""
    total = dict(left)
    for name, array in right.items():
        total[name] = np.add(total[name], array) if name in total else array
    return total
