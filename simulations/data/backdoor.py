"""A backdoor planted in what is to be forgotten: a trigger that stands for a label.

Each sample that a request of the run names gets a white square in a corner and the label that the
square is to stand for. A model that has learned them sees that label wherever it sees the square;
one that has forgotten them does not (Sommer et al. 2020 verify forgetting so).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Option, Settings, setting
from split_unlearning.models.inputs import described, is_text
from split_unlearning.simulations.data.dataset import Samples
from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.request import Request, number_of_label

_WHITE = 1.0


def triggered(images: torch.Tensor) -> torch.Tensor:
    """Return images with a white square in a corner, an eighth of their width, two pixels at least.

    They are of float32, shape (n, channels, height, width), scaled to [-1, 1].
    """
    marked = images.clone()
    side = max(2, images.shape[-1] // 8)
    marked[..., -side:, -side:] = _WHITE
    return marked


@dataclass(frozen=True)
class Backdoor(Settings):
    """The label that a trigger is to stand for, by its name or number; empty for no backdoor."""

    label: str = setting(
        Option(
            "",
            "a label's name or number, or empty for no backdoor",
            meaning="label that a white square stands for, planted in what is to be forgotten, "
            "for an audit",
            mixed=True,
        ),
        "backdoor",
    )

    def check(self, audit: bool, requests: Sequence[Request]) -> None:
        """Refuse a backdoor that nobody looks for, or that nothing is to be planted in.

        Raises
        ------
        UserError
            In one line.
        """
        if self.label and not audit:
            raise refuse("backdoor", self.label, "empty (without audit nobody looks for it)")
        if self.label and not requests:
            raise refuse("backdoor", self.label, "empty (nothing is to be forgotten)")

    def check_fits(self, dataset: Samples) -> None:
        """Refuse a label that the data set does not have, or texts.

        Raises
        ------
        UserError
            In one line.
        """
        if self.label and is_text(dataset.input_shape):
            of = f"dataset={dataset.name!r} has {described(dataset.input_shape)}"
            raise refuse("backdoor", self.label, f"empty ({of}: a trigger is of pixels)")
        if self.label:
            self.planted_label(dataset.class_names)

    def planted_label(self, class_names: Sequence[str]) -> int:
        """Return the number of the label.

        Raises
        ------
        UserError
            If the data set has no such label.
        """
        number = number_of_label(self.label, class_names)
        if number is not None:
            return number
        allowed = f"one of the {len(class_names)} labels: {', '.join(class_names)}; or empty"
        raise refuse("backdoor", self.label, allowed)


def named_by(
    requests: Sequence[Request],
    client: int,
    ids: Ids,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    seed: int,
) -> Ids:
    """Return which of a client's samples some requests name, one request after the other.

    See `Request.select`; what one request names is not there for the next.
    """
    left = np.ones(len(ids), dtype=bool)
    for request in requests:
        named = request.select(client, ids[left], labels[left], class_names, seed)
        left &= ~np.isin(ids, named)
    return ids[~left]
