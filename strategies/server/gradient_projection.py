"""The server's gradient cache, and how the server takes what forgotten samples gave back out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.devices import moved
from split_unlearning.models.seeding import seeded
from split_unlearning.models.training import finite
from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.part import Parts, ServerPart, Tensors, check_holds, frame
from split_unlearning.transport.message import Array
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.codec import Codec, Gradients
from split_unlearning.unlearning.gradient_projection.one_shot import Variant, Weighting, step_along
from split_unlearning.unlearning.gradient_projection.recorder import StepRecorder
from split_unlearning.unlearning.gradient_projection.rewriting import Rewriting, leave_out
from split_unlearning.unlearning.gradient_projection.rounding import nearest
from split_unlearning.unlearning.gradient_projection.sequential import (
    SequentialProjection,
    Shares,
    coefficients_of,
)
from split_unlearning.unlearning.objectives import CrossEntropy
from split_unlearning.unlearning.state_folder import StateFolder

_LEARNED, _RUN, _CLIENT_SEGMENT = "learned", "gradient-run", "client-segment"

# How often weights are kept beside gradients that are not what they were.
_WEIGHTS_EVERY = 64
# And beside those that requests rewrite, one after the other.
_WEIGHTS_EVERY_REWRITTEN = 16


class GradientCaches(ServerPart):
    """The server's gradient cache: of its own steps of learning, and what is projected from it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._model, self._clock = parts[ServerModel], parts[Clock]

    def take_up(self, folder: StateFolder) -> None:
        """Go on from what a folder keeps; `reopen` opens its cache."""
        super().take_up(folder)
        self._cache: GradientCache | None = None
        self._weights_every = 0
        self._rewriting: Rewriting | None = None
        self._forgotten: dict[int, int] = {}
        self._whole_batches = False
        self._projection: SequentialProjection | None = None

    @property
    def cache_bytes(self) -> int:
        """The size of the cache, in bytes."""
        return 0 if self._cache is None else self._cache.bytes

    # Learning.

    def record(self, codec: Codec, every: int, lasting: bool) -> str:
        """Cache every step from here on, until `learned`; return the name of the training.

        The name follows from the weights that the training begins with, and its settings. A
        `lasting` cache is rewritten for requests to come.
        """
        known = f"{self._model.digest()} {self.training}"
        run = hashlib.sha256(known.encode()).hexdigest()[:16]
        self.kept.save(_RUN, {"name": torch.tensor(list(run.encode()), dtype=torch.uint8)})
        self.reopen(codec, every, lasting)
        self.go_on()
        return run

    def reopen(self, codec: Codec, every: int, lasting: bool) -> str:
        """Take up the cache that is kept, as `record`; return the name of its training.

        Raises
        ------
        UserError
            If none is kept.
        """
        kept = self.kept.load(_RUN)
        if kept is None:
            raise UserError(
                "the server keeps no gradients: it learned with unlearning='retrain', or another "
                "method without them; allowed: a state-dir that was learned with this method"
            )
        run = bytes(kept["name"].tolist()).decode()
        self._cache = GradientCache(self.folder, run, codec, every)
        rewritten = _WEIGHTS_EVERY_REWRITTEN if lasting else 0
        self._weights_every = rewritten or (0 if codec == "float32" else _WEIGHTS_EVERY)
        if codec == "sketch":
            # Nothing is rebuilt from it, and these would take half as much again.
            self._weights_every = 0
        return run

    def go_on(self) -> tuple[int, int]:
        """Cache every step of the stage that has begun, behind those that are cached.

        Returns
        -------
        int, int
            The number of its next step, and which of the trainings in a row it is.
        """
        steps = self._opened.steps
        first, stage = (steps[-1].number + 1, steps[-1].stage + 1) if steps else (0, 0)
        model = self._model
        recorder = StepRecorder(
            self._opened, model.segment, model.optimiser, first, self._weights_every, stage
        )
        model.watchers.append(recorder.announce)
        return first, stage

    def scale_rate(self, rate: float) -> None:
        """Set the step size of the stage's steps to come, as a part of that of learning."""
        for group in self._model.optimiser.param_groups:
            group["lr"] = self.training.learning_rate * rate

    def learned(self, lasting: bool) -> None:
        """Cache no further step.

        If `lasting`, each request goes on from what the one before left. Else the weights are kept,
        and every request goes back to them.
        """
        self._opened.flush()
        if not lasting:
            self.kept.save(_LEARNED, self._model.state())

    # What clients have to know.

    def turns(self) -> list[tuple[int, int, int]]:
        """Return who took which steps of learning: client, first step, and the step after the last.

        In order; turns of one client that follow each other are one.
        """
        turns = []
        for client, group in groupby(self._opened.steps, key=lambda step: step.client):
            steps = [step.number for step in group]
            turns.append((client, steps[0], steps[-1] + 1))
        return turns

    def steps_of(self, clients: Collection[int]) -> dict[int, tuple[int, int]]:
        """Return the steps of some clients whose gradient is of any sample by now.

        Returns
        -------
        dict of int to (int, int)
            By number, of how many samples the gradient is, and of how many the batch was.
        """
        steps = [step for step in self._opened.steps if step.client in clients]
        return {step.number: (step.samples, step.batch_size) for step in steps if step.samples}

    def coefficients(self) -> NDArray[np.float64]:
        """Return c_t of every cached step, as `coefficients_of`."""
        return coefficients_of(self._opened.steps, self.training.momentum)

    # Unlearning.

    def begin(self, counts: Mapping[int, int], shares: Shares, beta: float, lasting: bool) -> None:
        """Begin to project: go on from the weights that were learned.

        `counts` says which steps hold forgotten samples, and how many; `shares` and `beta` are
        those of `SequentialProjection`. A `lasting` cache is rewritten on the way, for requests to
        come.
        """
        self._forgotten = dict(counts)
        self._whole_batches = shares == "whole"
        momentum = self.training.momentum
        self._rewriting = Rewriting(self._opened, momentum) if lasting else None
        self._projection = SequentialProjection(
            self._opened,
            self._forgotten,
            dict(enumerate(self.coefficients().tolist())),
            {name: torch.zeros_like(one) for name, one in self._model.segment.named_parameters()},
            shares=shares,
            beta=beta,
            momentum=momentum,
            rewriting=self._rewriting,
        )

    @frame
    def step(self, _: int, tensors: Tensors, value: str) -> dict[str, torch.Tensor]:
        """Take a mixed step of learning, given its number and its forgotten samples.

        The tensors are their ``smashed`` data, at the client's weights of that step, and their
        ``labels``.

        Returns
        -------
        dict
            The ``gradient`` at the cut, of their part of the batch's loss.

        Raises
        ------
        ValueError
            If it is not the turn of that step, or the tensors do not fit.
        """
        check_holds(tensors, {"smashed", "labels"})
        number = int(value)
        if self._projection is None:
            raise ValueError(f"nobody asked for the forgotten share of step {number}")
        x = self._model.received(tensors["smashed"])
        labels = self._model.checked_labels(tensors["labels"], len(x))
        batch_size = self._projection.mixed(number, len(x))
        weights = {
            name: one.detach().clone().requires_grad_()
            for name, one in self._projection.weights(number).items()
        }
        with seeded(derive_seed(self.training.seed, "forgotten-share", number)):
            logits = functional_call(self._model.segment, weights, (x,))
        loss = CrossEntropy().loss(logits, {"labels": moved(labels, x.device)})
        shared = finite(loss) * (len(x) / batch_size)
        *shares, cut = torch.autograd.grad(shared, [*weights.values(), x], materialize_grads=True)
        self._projection.take(number, dict(zip(weights, shares, strict=True)))
        return {"gradient": cut}

    def finish(self) -> None:
        """Take the steps that are left; the weights become those that were learned plus u.

        Raises
        ------
        ValueError
            If the result is not finite; the weights are then as they were.
        """
        assert self._projection is not None
        with self._clock.running():
            removed, self._projection = self._projection.finish(), None
            self._move(removed)
            if self._rewriting is not None:
                self._rewriting.finish()
                # Which samples were in a batch is known to their client alone.
                nobody = np.empty(0, dtype=np.int64)
                whole = self._whole_batches
                leave_out(self._opened, self._forgotten, nobody, whole_batches=whole)
                self._rewriting = None

    def take_step(
        self,
        steps: Sequence[int],
        variant: Variant,
        weighting: Weighting,
        devaluation: float,
        edge_boost: float,
    ) -> None:
        """Move the weights that were learned as the authors' form of the method does.

        `steps` hold forgotten samples; the others are as in `one_shot.step_along`.
        """
        cache, rate = self._opened, self.training.learning_rate
        with self._clock.running():
            held = [step.number for step in cache.steps if cache.holds(step.number)]
            rounded = [nearest(step, held) for step in steps]
            gradients = [cache.gradients(one) for one in rounded if one is not None]
            self._move(step_along(gradients, rate, variant, weighting, devaluation, edge_boost))

    def _move(self, removed: Gradients) -> None:
        learned = self.kept.load(_LEARNED) or self._model.state()
        weights = dict(learned)
        for name, step in removed.items():
            weights[name] = learned[name] + step.cpu()
            if not weights[name].isfinite().all():
                raise ValueError(
                    f"gradient projection diverged: {name} of the server segment is not finite; "
                    "what was learned is as it was"
                )
        self._model.load(weights)

    # For clients that are away.

    def keep_client_segment(self, carried: Mapping[str, Array]) -> None:
        """Keep the client segment as it was handed on last; nothing, once everybody has it."""
        if carried:
            tensors = {name: torch.from_numpy(one.copy()) for name, one in carried.items()}
            self.kept.save(_CLIENT_SEGMENT, tensors)
        else:
            self.kept.forget(_CLIENT_SEGMENT)

    def client_segment(self) -> dict[str, Array]:
        """Return what `keep_client_segment` keeps; empty if nothing."""
        kept = self.kept.load(_CLIENT_SEGMENT) or {}
        return {name: one.numpy() for name, one in kept.items()}

    @property
    def _opened(self) -> GradientCache:
        if self._cache is None:
            raise ValueError("the server segment has cached no gradients")
        return self._cache
