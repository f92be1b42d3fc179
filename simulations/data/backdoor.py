"""A backdoor planted in what is to be forgotten: a trigger that stands for a label.

Each sample that a request of the run names gets a white square in a corner and the label that the
square is to stand for. A model that has learned them sees that label wherever it sees the square;
one that has forgotten them does not (Sommer et al. 2020 verify forgetting so).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
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


def planted_label(name: str, class_names: Sequence[str]) -> int:
    """Return the label that a trigger is to stand for, by its name or number.

    Raises
    ------
    UserError
        If the data set has no such label.
    """
    number = number_of_label(name, class_names)
    if number is not None:
        return number
    allowed = f"one of the {len(class_names)} labels: {', '.join(class_names)}; or empty"
    raise refuse("backdoor", name, allowed)


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
