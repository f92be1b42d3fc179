"""Unlearning from gradient caches: the settings of its two forms, and what they refuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, cast

import numpy as np
from torch import nn

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import between, one_of, positive
from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.gradient_projection.codec import CODECS, Codec
from split_unlearning.unlearning.gradient_projection.one_shot import (
    VARIANTS,
    WEIGHTINGS,
    Variant,
    Weighting,
)
from split_unlearning.unlearning.gradient_projection.sequential import LEAST_PURE, SHARES, Shares
from split_unlearning.unlearning.methods import UnlearningMethod
from split_unlearning.unlearning.stages import Stage

_FINE_TUNING = "fine-tune"


class ProjectionMethod(UnlearningMethod, ABC):
    """Takes what forgotten samples left in the weights back out, then trains on without them.

    Every step of learning is cached for it, on the side that took it.
    """

    own_options: ClassVar = {
        "cache-codec": one_of("float32", CODECS, "how gradients are cached"),
        "cache-every": positive(1, "of every how many steps a gradient is cached"),
    }
    # A forgotten share that is taken again must be that part of the gradient which was cached: what
    # rounding leaves of it would count as retained, and be projected along.
    any_precision = False
    carried_out_by: ClassVar = {"vanilla": "gradient-projection"}
    final_rate: ClassVar[float] = 1.0
    """What the learning rate of the fine-tuning falls to, as a part of that of learning."""

    @property
    def codec(self) -> Codec:
        """How gradients are cached."""
        return cast(Codec, self.options["cache-codec"])

    @property
    def every(self) -> int:
        """Of every how many steps a gradient is cached."""
        return self.options.integer("cache-every")

    @property
    @abstractmethod
    def fine_tune_share(self) -> float:
        """How long the fine-tuning is, as a part of learning."""

    def fine_tuning(self, epochs: int) -> Stage:
        """Return the stage that follows the projection, given the epochs of learning."""
        return Stage(_FINE_TUNING, max(1, round(self.fine_tune_share * epochs)))

    def check_network(self, network: nn.Module) -> None:
        """Refuse batch norm: its statistics are no gradient, and no projection takes them back."""
        for name, layer in network.named_modules():
            if isinstance(layer, nn.modules.batchnorm._NormBase):
                raise UserError(
                    f"the model has {type(layer).__name__} ({name}), whose statistics gradient "
                    "projection cannot take back; allowed: a model without batch norm"
                )

    def approximations(self, lasting: bool) -> list[str]:
        """Return what of the result is approximate, a line each.

        With `lasting` caches, which are rewritten and kept for later requests.
        """
        lines = [
            f"the weights approximate those of retraining: {type(self).__name__}, then fine-tuning",
            "the gradient caches hold nothing that the forgotten samples gave, but what the others "
            "gave was taken at weights that had seen them"
            if lasting
            else "until the run ends, the gradient caches hold what the forgotten samples gave",
        ]
        if self.codec != "float32":
            lines.append(f"gradients were cached as {self.codec}")
        if self.every > 1:
            lines.append(
                f"gradients were cached of one step in {self.every}; of the others, forgotten ones "
                "were rounded to the nearest"
            )
        return lines


class GradientProjection(ProjectionMethod):
    """Follow through the cached steps what the forgotten samples did, projected off the others."""

    own_options: ClassVar = {
        "shares": one_of(
            "recompute",
            SHARES,
            "what of a mixed batch's gradient is forgotten: taken again, or the whole",
        ),
        "projection-beta": between(1.0, "0 <= x <= 2", "β, how much of a projection is done"),
        "client-part": one_of(
            "chain",
            ("chain", "local"),
            "with client-sync=handoff, clients project in turn, or each its own steps",
        ),
        "lost-gradients": one_of(
            "none",
            ("none", "nearest"),
            "with client-sync=handoff, what stands for the gradients of a client that is dropped: "
            "nothing, or those of the others' nearest steps",
        ),
        "fine-tune-share": between(
            0.1,
            "0 < x <= 1",
            "epochs of training on after projection, of server-epochs; at least one",
        ),
    }
    final_rate = 0.1

    @property
    def shares(self) -> Shares:
        """How mixed batches are divided."""
        return cast(Shares, self.options["shares"])

    @property
    def beta(self) -> float:
        """β, how much of each projection is carried out."""
        return self.options.number("projection-beta")

    @property
    def local(self) -> bool:
        """Whether each client goes through its own steps alone where the segment is handed on."""
        return self.options["client-part"] == "local"

    @property
    def rounds_lost(self) -> bool:
        """Whether gradients of a client that is gone are rounded to those of others."""
        return self.options["lost-gradients"] == "nearest"

    @property
    def fine_tune_share(self) -> float:
        """How long the fine-tuning is, as a part of learning."""
        return self.options.number("fine-tune-share")

    def check(self) -> None:
        """Refuse what the weights of a step would have to be known for, where they are not."""
        if self.shares == "recompute" and self.codec == "sketch":
            allowed = "float32, float16, int8 (weights are rebuilt), or shares='whole'"
            raise refuse("cache-codec", self.codec, allowed)
        if self.shares == "recompute" and self.every > 1:
            allowed = "1 (shares='recompute' rebuilds weights from every step), or shares='whole'"
            raise refuse("cache-every", self.every, allowed)
        if self.shares == "recompute" and self.local:
            allowed = "chain (shares='recompute' goes through the turns), or shares='whole'"
            raise refuse("client-part", "local", allowed)

    def check_batches(self, batches: Iterable[Ids], forgotten: Ids) -> None:
        """Refuse `whole` shares where too few batches are without a forgotten sample."""
        if self.shares != "whole" or not len(forgotten):
            return
        pure = [not np.isin(ids, forgotten).any() for ids in batches]
        if pure and np.mean(pure) < LEAST_PURE:
            raise refuse(
                "shares",
                "whole",
                f"recompute (only {np.mean(pure):.0%} of the batches are without a forgotten "
                f"sample; whole needs {LEAST_PURE:.0%})",
            )

    def approximations(self, lasting: bool) -> list[str]:
        """Return what of the result is approximate, a line each."""
        lines = super().approximations(lasting)
        if self.shares == "whole":
            lines.append("batches with a forgotten sample counted as forgotten as a whole")
        if self.local:
            lines.append("each client went through its own steps alone (client-part=local)")
        return lines


class PaperProjection(ProjectionMethod):
    """Take one step along what projection leaves of the forget gradients, as the authors do."""

    # What its one step took away is no sum of cached gradients: a cache cannot be rewritten so.
    outlives_run = False
    own_options: ClassVar = {
        "projection-variant": one_of(
            "raw", VARIANTS, "what is projected out of the forget gradients' sum"
        ),
        "projection-weighting": one_of(
            "U", WEIGHTINGS, "how forget gradients weigh over the steps"
        ),
        "projection-devaluation": between(0.25, "0 <= x <= 1", "the least such weight"),
        "projection-edge-boost": positive(4.0, "how much more the first and last step weigh"),
    }

    @property
    def variant(self) -> Variant:
        """What is projected out of the sum of the forget gradients."""
        return cast(Variant, self.options["projection-variant"])

    @property
    def weighting(self) -> Weighting:
        """How forget gradients weigh over the steps."""
        return cast(Weighting, self.options["projection-weighting"])

    @property
    def fine_tune_share(self) -> float:
        """A fifth, as the authors have it."""
        return 0.2

    def approximations(self, lasting: bool) -> list[str]:
        """Return what of the result is approximate, a line each."""
        return [
            *super().approximations(lasting),
            "batches with a forgotten sample counted as forgotten as a whole",
            "where the segment is not handed on, a client's gradients of other clients' steps are "
            "its own nearest ones",
        ]
