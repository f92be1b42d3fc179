"""Stages: epochs of training on some of the samples towards one objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.objectives import TEACHERS, CrossEntropy, Objective

Samples = Literal["retained", "forgotten", "all"]
"""The samples that a stage visits.

`forgotten` are those of one request, which only the clients that asked hold; `all` are these and
the retained ones."""

NO_REQUEST = -1
"""The number of a request where there is none: nothing is forgotten."""


@dataclass(frozen=True)
class Stage:
    """Epochs of training on some of the samples towards one objective, with a fresh optimiser.

    The name distinguishes the stage in a method, and seeds its random draws.

    Raises
    ------
    UserError
        For unknown samples, epochs that are no integer, an invalid objective or an unknown teacher.
    """

    name: str
    epochs: int
    samples: Samples = "retained"
    objective: Objective = field(default_factory=CrossEntropy)

    def __post_init__(self) -> None:
        if self.samples not in get_args(Samples):
            raise UserError(
                f"stage {self.name!r} visits {self.samples!r} samples; allowed: "
                f"{', '.join(get_args(Samples))}"
            )
        if type(self.epochs) is not int:
            raise UserError(f"stage {self.name!r} has {self.epochs!r} epochs; allowed: an integer")
        if not isinstance(self.objective, Objective):
            raise UserError(f"the objective of stage {self.name!r} is no Objective")
        for teacher in self.objective.teachers:
            if teacher not in TEACHERS:
                raise UserError(
                    f"stage {self.name!r} asks the teacher {teacher!r}; allowed: "
                    f"{', '.join(TEACHERS)}"
                )


def learning(epochs: int) -> Stage:
    """Return the stage in which a network learns, or learns again without some samples.

    It has one name for both: retraining must draw the same numbers.
    """
    return Stage("train", epochs)


def pretraining(epochs: int) -> Stage:
    """Return the stage in which a client trains its segment alone, before the server learns."""
    return Stage("pretrain", epochs)


RESERVED = (learning(1).name, pretraining(1).name)
"""Names that no stage of an unlearning method may have."""
