"""Unlearning methods by name, independent of the protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import (
    Options,
    Owner,
    Value,
    between,
    declares_wrongly,
    positive,
)
from split_unlearning.foundations.registry import Registry
from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.objectives import Batch, BoundedAscent, Distillation, targets_of
from split_unlearning.unlearning.stages import RESERVED, Stage


class UnlearningMethod(Owner):
    """How to forget.

    A strategy names the kinds of method that it can carry out (`SplitStrategy.methods`): a new
    method is a subclass of one of them. It declares the settings that it reads in `own_options`;
    their values are `options`. ``outlives_run`` says whether a state-dir keeps all that the
    method needs for a later request, ``any_precision`` whether numbers may be rounded to less
    than float32, in passes of the server segment or where they cross the cut.
    """

    outlives_run: ClassVar[bool] = True
    any_precision: ClassVar[bool] = True
    carried_out_by: ClassVar[Mapping[str, str]] = {}

    def __init__(self, given: Mapping[str, Value]) -> None:
        self.options = self.filled(given)

    @classmethod
    def check_options(cls, options: Options) -> None:
        """Refuse settings of the run that the method does not go with, before anything starts.

        Raises
        ------
        UserError
            In one line that names the key, the value and what is allowed.
        """
        name = options["unlearning"]
        if options["state-dir"] and not cls.outlives_run:
            allowed = f"empty (unlearning={name!r} keeps what it needs for one run only)"
            raise refuse("state-dir", options["state-dir"], allowed)
        for key in ("precision", "codec"):
            if options[key] != "float32" and not cls.any_precision:
                allowed = f"float32 (unlearning={name!r} takes gradients apart)"
                raise refuse(key, options[key], allowed)

    def check(self) -> None:
        """Refuse settings that cannot be carried out, before anything starts.

        Raises
        ------
        UserError
            In one line.
        """

    def check_network(self, network: nn.Module) -> None:
        """Refuse an uncut network that the method cannot make forget, before anything starts.

        Raises
        ------
        UserError
            In one line.
        """

    def check_batches(self, batches: Iterable[Ids], forgotten: Ids) -> None:
        """Refuse requests that the method cannot answer, before anything starts.

        `batches` has the sample ids of each batch of learning, computed on demand, `forgotten` the
        ids of all samples that the run is to forget.

        Raises
        ------
        UserError
            In one line.
        """


class Retrain(UnlearningMethod):
    """Train again without the forgotten samples: exact, and the reference for all other methods."""


class StagedMethod(UnlearningMethod, ABC):
    """Continue from the learned network in stages of training; approximate.

    Where every client takes part in learning, every client takes part in stages on retained
    samples.
    """

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """Return the stages in order, each with a name of its own."""

    def check(self) -> None:
        """Refuse stages that cannot be carried out, or that share a name."""
        for stage in self.stages():
            _try_out(stage)
            if stage.epochs < 1:
                raise UserError(
                    f"stage {stage.name!r} of {type(self).__name__} has {stage.epochs} epochs; "
                    "allowed: an integer >= 1"
                )
        names = [stage.name for stage in self.stages()]
        for name in names:
            if name in RESERVED or names.count(name) > 1:
                raise UserError(
                    f"stage {name!r} of {type(self).__name__} needs a name of its own; taken are "
                    f"{', '.join([*RESERVED, *names])}"
                )

    def stage(self, name: str) -> Stage:
        """Return the stage of that name.

        Raises
        ------
        ValueError
            If the method has no such stage.
        """
        stages = {stage.name: stage for stage in self.stages()}
        if name not in stages:
            raise ValueError(f"there is no stage {name!r}; there are {sorted(stages)}")
        return stages[name]


def _try_out(stage: Stage) -> None:
    """Compute the loss of a batch of two samples, so that an objective fails before the run."""

    def logits_of(teacher: str, rows: torch.Tensor) -> torch.Tensor:
        if teacher not in stage.objective.teachers:
            raise ValueError(f"{teacher!r} is not among its teachers")
        return torch.zeros(int(rows.sum()), 2)

    forgotten = torch.tensor([stage.samples != "retained", stage.samples == "forgotten"])
    batch = Batch(np.arange(2), torch.tensor([0, 1]), forgotten, 2)
    try:
        loss = stage.objective.loss(
            torch.zeros(2, 2, requires_grad=True), targets_of(stage.objective, batch, logits_of)
        )
        loss.backward()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        name = type(stage.objective).__name__
        raise UserError(f"{name}, of stage {stage.name!r}, has no loss ({what})") from error


class NoUnlearning(StagedMethod):
    """Change nothing: the baseline that every method has to beat."""

    def stages(self) -> Sequence[Stage]:
        """Return no stages."""
        return ()


class FineTuning(StagedMethod):
    """Train on without the forgotten samples, whose influence fades."""

    own_options: ClassVar = {
        "fine-tune-epochs": positive(6, "epochs of training on, without what is forgotten")
    }

    def stages(self) -> Sequence[Stage]:
        """Return one stage on the retained samples."""
        return (Stage("fine-tune", self.options.integer("fine-tune-epochs")),)


class GradientAscent(StagedMethod):
    """Raise the loss of the forgotten samples up to a bound, then train on without them."""

    own_options: ClassVar = {
        **FineTuning.own_options,
        "ascent-epochs": positive(6, "epochs of gradient ascent, on what is forgotten"),
        "ascent-bound": positive(1.0, "how far ascent pushes a loss, in units of that of guessing"),
    }

    def stages(self) -> Sequence[Stage]:
        """Return the ascent, then the fine-tuning."""
        ascent = BoundedAscent(self.options.number("ascent-bound"))
        return (
            Stage("ascent", self.options.integer("ascent-epochs"), "forgotten", ascent),
            Stage("fine-tune", self.options.integer("fine-tune-epochs")),
        )


class DistillationUnlearning(StagedMethod):
    """Learn from two teachers: the original on retained samples, an untrained one on the rest."""

    own_options: ClassVar = {
        "distillation-epochs": positive(6, "epochs of distillation, on everything"),
        "distillation-alpha": between(0.5, "0 <= x <= 1", "α, the weight of forgetting"),
    }

    def stages(self) -> Sequence[Stage]:
        """Return one stage on all samples."""
        objective = Distillation(self.options.number("distillation-alpha"))
        epochs = self.options.integer("distillation-epochs")
        return (Stage("distillation", epochs, "all", objective),)


def _complaint(value: object) -> str | None:
    """Say why `value` cannot be an unlearning method."""
    if not (isinstance(value, type) and issubclass(value, UnlearningMethod)):
        return "an unlearning method is a subclass of split_unlearning.UnlearningMethod"
    missing = sorted(getattr(value, "__abstractmethods__", ()))
    if missing:
        return f"it does not define {', '.join(missing)}"
    return declares_wrongly(value)


METHODS: Registry[type[UnlearningMethod]] = Registry(
    "unlearning", group="split_unlearning.unlearning", check=_complaint
)
METHODS.register("distillation", "split_unlearning.unlearning.methods:DistillationUnlearning")
METHODS.register("fine-tune", "split_unlearning.unlearning.methods:FineTuning")
METHODS.register("gradient-ascent", "split_unlearning.unlearning.methods:GradientAscent")
_PROJECTION = "split_unlearning.unlearning.gradient_projection.methods"
METHODS.register("gradient-projection", f"{_PROJECTION}:GradientProjection")
METHODS.register("gradient-projection-paper", f"{_PROJECTION}:PaperProjection")
METHODS.register("none", "split_unlearning.unlearning.methods:NoUnlearning")
METHODS.register("retrain", "split_unlearning.unlearning.methods:Retrain")
