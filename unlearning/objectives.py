"""Objectives of a training stage: a loss in two halves, one on each side of the cut.

The client has the labels and knows which samples to forget; the logits are on the side that holds
the last layer. So an objective first makes the *targets* of a batch, where the labels are, and then
a loss of targets and logits, where the logits are. Targets travel beside the smashed data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from split_unlearning.unlearning.exactness import Ids

TEACHERS = ("original", "incompetent")
"""Frozen networks that an objective may ask.

The learned network as it was before the stage, and a network that never learned anything."""

LogitsOf = Callable[[str, torch.Tensor], torch.Tensor]
"""Returns a teacher's logits: takes its name and a mask of the rows of a batch."""


@dataclass(frozen=True)
class Batch:
    """A client's knowledge of the samples of one batch.

    Ids and labels are int64, shape (n,); `forgotten` is bool, shape (n,), and says which samples
    the request means.
    """

    ids: Ids
    labels: torch.Tensor
    forgotten: torch.Tensor
    num_labels: int


class Objective(ABC):
    """A loss in two halves.

    ``teachers`` names the networks of `TEACHERS` that `targets` asks, ``sends`` the tensors that it
    returns: only those cross the cut.
    """

    teachers: ClassVar[tuple[str, ...]] = ()
    sends: ClassVar[frozenset[str]] = frozenset({"labels"})

    def targets(self, batch: Batch, logits_of: LogitsOf) -> dict[str, torch.Tensor]:
        """Return the targets, with one row a sample; by default the labels.

        `logits_of` asks a teacher, which may take an exchange over the link.
        """
        return {"labels": batch.labels}

    @abstractmethod
    def loss(self, logits: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch, a scalar; logits have shape (n, labels)."""


def targets_of(objective: Objective, batch: Batch, logits_of: LogitsOf) -> dict[str, torch.Tensor]:
    """Return an objective's targets of a batch, with exactly the names that it ``sends``.

    Raises
    ------
    ValueError
        If the names differ, before anything crosses the cut.
    """
    targets = objective.targets(batch, logits_of)
    if targets.keys() != objective.sends:
        raise ValueError(
            f"{type(objective).__name__} sends {sorted(objective.sends)} and made the targets "
            f"{sorted(targets)}"
        )
    return targets


class CrossEntropy(Objective):
    """Learn the labels."""

    def loss(self, logits: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean cross entropy."""
        return F.cross_entropy(logits, targets["labels"])


@dataclass(frozen=True)
class BoundedAscent(Objective):
    """Unlearn the labels: raise the cross entropy of each sample up to a bound.

    The SplitWiper paper's formula for gradient ascent adds the norm of a difference of gradients, a
    scalar, to the weights; this is the ascent that its sources mean. Without a bound the loss of a
    few samples grows for ever and ruins the rest.

    `bound` is that of a sample's loss, in units of the loss of guessing, log(labels).
    """

    bound: float

    def loss(self, logits: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the negative mean of the cross entropy, capped at the bound for each sample."""
        limit = self.bound * math.log(logits.shape[1])
        each = F.cross_entropy(logits, targets["labels"], reduction="none")
        return -each.clamp(max=limit).mean()


@dataclass(frozen=True)
class Distillation(Objective):
    """Answer like the original on retained samples, like an untrained network on forgotten ones.

    L = α·L_u + (1-α)·L_r (the SplitWiper paper, section 3; Chundawat et al., "Can bad teaching
    induce forgetting?", AAAI 2023): L_u is the mean Kullback-Leibler divergence from an incompetent
    teacher over the forgotten samples of a batch, L_r that from the original network over the
    retained samples. No label is used.

    `alpha` is α, the weight of forgetting, from 0 to 1.
    """

    alpha: float
    teachers: ClassVar[tuple[str, ...]] = TEACHERS
    sends: ClassVar[frozenset[str]] = frozenset({"teacher", "weights"})

    def targets(self, batch: Batch, logits_of: LogitsOf) -> dict[str, torch.Tensor]:
        """Return the teachers' probabilities, and each sample's weight in the loss."""
        rows = len(batch.labels)
        teacher = torch.zeros(rows, batch.num_labels)
        weights = torch.zeros(rows)
        parts = (
            ("incompetent", batch.forgotten, self.alpha),
            ("original", ~batch.forgotten, 1 - self.alpha),
        )
        for name, mask, weight in parts:
            if mask.any():
                teacher[mask] = logits_of(name, mask).cpu().softmax(dim=1)
                weights[mask] = weight / int(mask.sum())
        return {"teacher": teacher, "weights": weights}

    def loss(self, logits: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of each sample's divergence from its teacher."""
        divergence = F.kl_div(logits.log_softmax(dim=1), targets["teacher"], reduction="none")
        return (divergence.sum(dim=1) * targets["weights"]).sum()
