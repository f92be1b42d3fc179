"""The client of gradient-cache projection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from split_unlearning.clients.acting import action
from split_unlearning.clients.holding import Holding
from split_unlearning.clients.vanilla import VanillaClient
from split_unlearning.models.devices import device, moved
from split_unlearning.transport.link import Link
from split_unlearning.transport.message import Array, Message
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.codec import Gradients
from split_unlearning.unlearning.gradient_projection.methods import (
    GradientProjection,
    PaperProjection,
    ProjectionMethod,
)
from split_unlearning.unlearning.gradient_projection.one_shot import step_along
from split_unlearning.unlearning.gradient_projection.recorder import StepRecorder
from split_unlearning.unlearning.gradient_projection.rewriting import Rewriting, leave_out
from split_unlearning.unlearning.gradient_projection.rounding import nearest
from split_unlearning.unlearning.gradient_projection.sequential import (
    SequentialProjection,
    coefficients_of,
)
from split_unlearning.unlearning.gradient_projection.steps import Step
from split_unlearning.unlearning.objectives import Batch
from split_unlearning.unlearning.stages import Stage, learning

_LEARNED, _REMOVED, _VELOCITY = "learned", "removed", "velocity"


class GradientProjectionClient(VanillaClient):
    """Caches the gradients of its own steps, with the ids of their samples, and projects them."""

    _cache: GradientCache | None = None
    _recorder: StepRecorder | None = None

    # Learning.

    @action
    def start(self, message: Message) -> Message:
        """Begin as in vanilla; nothing is learned yet."""
        self.state.forget(_LEARNED)
        return super().start(message)

    @action
    def train(self, message: Message) -> Message:
        """Take one turn as in vanilla, and cache its steps if it is one of learning."""
        answer = super().train(message)
        if self._cache is not None:
            self._cache.flush()
        return answer

    def optimiser_of(self, segment: nn.Module, message: Message) -> torch.optim.SGD:
        """Return the optimiser of a turn: watched by the cache, or at the step size it is sent."""
        optimiser = super().optimiser_of(segment, message)
        if "cache-run" in message.fields:
            self._cache = self._opened(message)
            first, stage = message.integer("first-step"), message.integer("cache-stage")
            self._recorder = StepRecorder(self._cache, segment, optimiser, first, stage=stage)
        for group in optimiser.param_groups:
            group["lr"] *= float(message.fields.get("rate", 1.0))
        return optimiser

    def visit(
        self, stage: Stage, epoch: int, about: int, holding: Holding | None = None
    ) -> Iterator[tuple[torch.Tensor, Batch]]:
        """Yield the batches of an epoch, each announced to the cache."""
        for x, batch in super().visit(stage, epoch, about, holding):
            if self._recorder is not None:
                self._recorder.announce(self.client, len(x), batch.ids)
            yield x, batch

    # Unlearning.

    def stage(self, message: Message) -> Stage:
        """Return the stage that a message is about: learning, or what follows the projection."""
        method, epochs = self.setting.method, self.training.server_epochs
        if isinstance(method, ProjectionMethod) and message.fields["stage"] != learning(1).name:
            return method.fine_tuning(epochs)
        return super().stage(message)

    @action
    def locate(self, message: Message) -> Message:
        """Say which of its cached steps held samples that it has forgotten, and how many."""
        counts = self._counts(self._opened(message).steps)
        found = {"steps": list(counts), "counts": list(counts.values())}
        tensors: dict[str, Array] = {
            name: np.array(values, dtype=np.int64) for name, values in found.items()
        }
        return Message("locate", tensors=tensors)

    @action
    def project(self, message: Message) -> Message:
        """Go through some of its steps: u as it was carried here, or as it was left, and on."""
        method = self.setting.method
        assert isinstance(method, GradientProjection)
        cache, hands_on = self._opened(message), bool(message.fields["hands-on"])
        first, stop = message.integer("first-step"), message.integer("stop-step")
        steps = [step for step in cache.steps if first <= step.number < stop]
        rewriting = None
        if message.fields["lasting"]:
            velocity = self._velocity(message, steps[0], hands_on)
            rewriting = Rewriting(cache, self.training.momentum, velocity)
        projection = SequentialProjection(
            cache,
            self._counts(cache.steps),
            self._coefficients(message, cache, hands_on),
            self._begun(message, hands_on),
            steps=steps,
            shares=method.shares,
            beta=method.beta,
            momentum=self.training.momentum,
            rewriting=rewriting,
            stand_ins=_stand_ins(message),
        )
        mixed = [step for step in steps if projection.is_mixed(step)]
        with ExitStack() as stack:
            if mixed:
                link = stack.enter_context(self.connect(message))
                for step in mixed:
                    weights = projection.weights(step.number)
                    projection.take(step.number, self._share(link, weights, step))
                self.waited = link.seconds_waiting
        removed, velocity = projection.finish(), {}
        if rewriting is not None:
            rewriting.finish()
            velocity = rewriting.velocity
        answer = Message("project", {"stage": steps[-1].stage})
        if hands_on:
            answer.tensors = _carried(removed) | _carried(velocity, _VELOCITY)
            return answer
        self.state.save(_REMOVED, removed)
        if velocity:
            self.state.save(_VELOCITY, velocity)
        return answer

    @action
    def take_step(self, message: Message) -> Message:
        """Move at once, as the authors do; a step of another client's is the nearest of its own."""
        method = self.setting.method
        assert isinstance(method, PaperProjection)
        cache, hands_on = self._opened(message), bool(message.fields["hands-on"])
        own = [step.number for step in cache.steps if cache.holds(step.number)]
        wanted = message.tensors["steps"].tolist()
        # A segment that is handed on has its steps spread over the clients: each sees to its own.
        mine = {step.number for step in cache.steps}
        rounded = [nearest(step, own) for step in wanted if not hands_on or step in mine]
        removed = step_along(
            [cache.gradients(one) for one in rounded if one is not None],
            self.training.learning_rate,
            method.variant,
            method.weighting,
            method.options.number("projection-devaluation"),
            method.options.number("projection-edge-boost"),
        )
        if hands_on:
            return Message("take-step", tensors=_carried(removed))
        self.state.save(_REMOVED, removed)
        return Message("take-step")

    @action
    def apply(self, message: Message) -> Message:
        """Go back to the segment that was learned, and add what was carried here or worked out."""
        learned, lasting = self.state.load(_LEARNED), bool(message.fields["lasting"])
        if learned is None:
            # The first request, or each goes on from the one before.
            learned = self.kept_weights()
            if not lasting:
                self.state.save(_LEARNED, learned)
        removed = _tensors(message) or self.state.load(_REMOVED) or {}
        for name in (_REMOVED, _VELOCITY):
            self.state.forget(name)
        moved = {
            name: weight + removed[name] if name in removed else weight
            for name, weight in learned.items()
        }
        wrong = [name for name, weight in moved.items() if not weight.isfinite().all()]
        if wrong:
            raise ValueError(
                f"gradient projection diverged: {wrong[0]} of client {self.client}'s segment is "
                "not finite; what was learned is as it was"
            )
        self.keep_weights(moved)
        if lasting:
            self._rewrite(message)
        return Message("apply")

    def _rewrite(self, message: Message) -> None:
        """Remove from the cache what is left in it of what this client has forgotten."""
        method, cache = self.setting.method, self._opened(message)
        assert isinstance(method, GradientProjection)
        forgotten = self.forgotten.among(self.whole.ids)
        whole = method.shares == "whole"
        leave_out(cache, self._counts(cache.steps), forgotten, whole_batches=whole)

    def _opened(self, message: Message) -> GradientCache:
        """Return the cache of the training that a message is about; that of another is refused."""
        method = self.setting.method
        assert isinstance(method, ProjectionMethod)
        run = str(message.fields["cache-run"])
        return GradientCache(self._store, run, method.codec, method.every)

    def _counts(self, steps: Sequence[Step]) -> dict[int, int]:
        """Return, by step, how many of its samples are forgotten; steps with none are left out."""
        forgotten = self.forgotten.among(self.whole.ids)
        counts = {step.number: int(np.isin(step.ids, forgotten).sum()) for step in steps}
        return {number: count for number, count in counts.items() if count}

    def _coefficients(
        self, message: Message, cache: GradientCache, hands_on: bool
    ) -> dict[int, float]:
        """Return c of each step: momentum carries a step on along the steps of its own segment."""
        if hands_on:
            coefficients = message.tensors["coefficients"].tolist()
            return dict(enumerate(coefficients, start=message.integer("first-step")))
        moved = coefficients_of(cache.steps, self.training.momentum)
        return {step.number: float(c) for step, c in zip(cache.steps, moved, strict=True)}

    def _begun(self, message: Message, hands_on: bool) -> Gradients:
        """Return u so far."""
        begun = _tensors(message) if hands_on else self.state.load(_REMOVED)
        if not begun:
            begun = {
                name: torch.zeros_like(one) for name, one in self.kept_segment().named_parameters()
            }
        return _here(begun)

    def _velocity(self, message: Message, step: Step, hands_on: bool) -> Gradients:
        """Return by how much momentum differs, before a step, from what it was in learning."""
        if not hands_on:
            return _here(self.state.load(_VELOCITY) or {})
        # Steps of a client that is away or gone are gone past; with each stage it begins anew.
        if message.fields.get("left-stage", step.stage) != step.stage:
            return {}
        passed = step.number - int(message.fields.get("left-before", step.number))
        faded = self.training.momentum**passed
        return _here({name: faded * one for name, one in _tensors(message, _VELOCITY).items()})

    def _share(self, link: Link, weights: Gradients, step: Step) -> Gradients:
        """Return the forgotten samples' share of a batch's gradient, at the weights of its step."""
        meant = np.intersect1d(step.ids, self.forgotten.among(self.whole.ids))
        forgotten = self.whole.only(meant)
        held = {name: one.detach().clone().requires_grad_() for name, one in weights.items()}
        smashed = functional_call(self.kept_segment(), held, (moved(forgotten.x, device()),))
        sent = {"smashed": smashed.detach().cpu(), "labels": forgotten.y}
        reply, _ = link.exchange(sent, {"step": str(step.number)})
        at_cut = moved(reply["gradient"], smashed.device)
        shares = torch.autograd.grad(smashed, list(held.values()), at_cut, materialize_grads=True)
        return dict(zip(held, shares, strict=True))


def _here(tensors: Gradients) -> Gradients:
    return {name: tensor.detach().to(device()) for name, tensor in tensors.items()}


def _stand_ins(message: Message) -> dict[int, tuple[float, float]]:
    """Return which of its steps stand in for those of a client that is gone, and how much."""
    if "stand-ins" not in message.tensors:
        return {}
    steps, amounts = (message.tensors[name].tolist() for name in ("stand-ins", "amounts"))
    return {step: (before, after) for step, (before, after) in zip(steps, amounts, strict=True)}


def _carried(tensors: Gradients, what: str = _REMOVED) -> dict[str, Array]:
    """Return u, or what goes with it, as the tensors of a message."""
    return {f"{what}/{name}": tensor.cpu().numpy() for name, tensor in tensors.items()}


def _tensors(message: Message, what: str = _REMOVED) -> Gradients:
    """Return the u that a message carries, or what goes with it; empty if it carries none."""
    return {
        name.removeprefix(f"{what}/"): torch.from_numpy(array.copy())
        for name, array in message.tensors.items()
        if name.startswith(f"{what}/")
    }
