"""Accuracy: the share of test samples that were predicted right."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def accuracy(
    correct: Counts, samples: Counts, where: NDArray[np.bool_] | Literal[True] = True
) -> float | None:
    """Return the share right of the test samples selected by `where`; None if there are none.

    All arrays are of one shape, such as a row a client and a column a label.

    >>> accuracy(np.array([[3, 0]]), np.array([[4, 2]]), np.array([[True, False]]))
    0.75
    """
    chosen = int(samples.sum(where=where))
    return int(correct.sum(where=where)) / chosen if chosen else None
