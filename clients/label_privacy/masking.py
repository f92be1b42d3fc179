"""Masking (Algorithm 4): the rows of an upload, clipped and with noise."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from split_unlearning.clients.label_privacy.copies import Assignment
from split_unlearning.clients.label_privacy.mechanism import Mechanism
from split_unlearning.clients.label_privacy.secrets import uniforms
from split_unlearning.unlearning.exactness import Ids

# Rows that get their noise at a time, so that memory does not grow with the chunk.
_ROWS = 256


class Records(Protocol):
    """Smashed data by position: an array, or an object that computes records on demand."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Return the records at some positions: float32, shape (len(rows), ...)."""


def mask(
    records: Records,
    assignment: Assignment,
    mechanism: Mechanism | None,
    secret: bytes,
    generation: int,
    start: int,
    stop: int,
) -> NDArray[np.float32]:
    """Return rows `start` to `stop` (excluded) of an upload: float32, shape (stop - start, ...).

    Records, float32, shape (n, ...), are indexed by arrays of positions. Without a mechanism
    nothing is clipped and no noise is added. The secret is the client's own.

    The noise of a row follows from the secret, the generation (the number of the client's upload,
    from 0), the record's id and the number of its copy: the same bits whatever the borders and the
    other records. So a generation is for one set of smashed data. Other data under the same
    generation would carry the same noise, and the difference of both uploads none; so would another
    client's with the same secret and ids.

    Raises
    ------
    UserError
        If smashed data that are to be clipped are not finite.
    ValueError
        If there are no such rows, or `generation` is below 0.
    """
    if not 0 <= start <= stop <= len(assignment.rows):
        raise ValueError(f"rows {start} to {stop} of {len(assignment.rows)}")
    if generation < 0:
        raise ValueError(f"generation {generation}")
    blocks = []
    for first in range(start, max(stop, start + 1), _ROWS):
        block = slice(first, min(first + _ROWS, stop))
        plain = records[assignment.rows[block]]
        if mechanism is None:
            blocks.append(plain)
            continue
        clipped = mechanism.clip_records(plain)
        drawn = _draws(secret, generation, assignment.ids[block], assignment.copy[block], clipped)
        blocks.append(mechanism.released(clipped, drawn))
    return np.concatenate(blocks)


def _draws(
    secret: bytes,
    generation: int,
    ids: Ids,
    copy: NDArray[np.int64],
    like: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return one uniform draw for each coordinate of each row."""
    size = math.prod(like.shape[1:])
    drawn = np.empty(like.shape, dtype=np.float64)
    for number in np.unique(copy).tolist():
        mine = copy == number
        rows = uniforms(secret, ids[mine], size, "noise", generation, number)
        drawn[mine] = rows.reshape(-1, *like.shape[1:])
    return drawn
