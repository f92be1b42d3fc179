"""SISA's slices: training in steps, so that forgetting restarts from the step before.

Samples, or the server's clients, are cut into slices. Step s trains, with a fresh optimiser, on
slices 1 to s, and its weights are kept; a request that touches slice s and none before restarts
from the weights of step s - 1. Exact: a sample's slice, and every draw, depend on no other sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.exactness import Ids, mixed
from split_unlearning.unlearning.stages import Stage

# Proportions of the sample visits of steps.
_FIRST_AND_LAST, _BETWEEN = 7, 2


def slice_of(ids: Ids, slices: int, seed: int) -> Ids:
    """Return the slice of each sample, from 0: int64, shape (n,).

    It follows from a sample's id and the seed (from `derive_seed`) alone; slices hold about as many
    samples each.
    """
    return (mixed(ids, seed) % np.uint64(slices)).astype(np.int64)


def epochs_of(sizes: Sequence[int], epochs: int) -> list[int]:
    """Return the number of epochs of each step: most in the first step and in the last.

    The first and the last step each take 3.5 times as many sample visits as a step between. A step
    visits its slice and all before it, so its epochs are its visits over the samples seen so far;
    rounded down, at least one. In total that is at most `epochs` over everything, unless there are
    fewer epochs than slices.

    The last step sees everything: the longer it is, the nearer is the result to learning without
    slices, and the more does each request redo. The length of the first step keeps the mean over
    the slices at ``(S + 1) / 2S``, as with equal visits. With five slices a request redoes 0.56 of
    all visits on average and 0.33 for the last slice. Equal visits in each step would be 0.59 and
    0.2, and lose accuracy (docs/measurements.md); equal epochs in each 0.73 and 0.33.

    Sizes are in any unit that forgetting does not change: samples, clients. `epochs` is that over
    everything, if there were one slice.
    """
    steps, everything = len(sizes), sum(sizes)
    parts = [_BETWEEN] * steps
    parts[0] = parts[-1] = _FIRST_AND_LAST
    return [
        max(1, epochs * everything * part // (sum(parts) * visited)) if epochs else 0
        for part, visited in zip(parts, accumulate(sizes), strict=True)
    ]


def step_of(stage: Stage, number: int, slices: int) -> Stage:
    """Return one step of a stage; with one slice the stage itself."""
    return replace(stage, name=f"{stage.name}-{number + 1}") if slices > 1 else stage


def dealt(clients: Sequence[int], slices: int) -> list[list[int]]:
    """Deal clients whole to the server's slices, the larger slices last.

    Clients come most stable first: a request of the last redoes least.

    Raises
    ------
    UserError
        If a slice would be empty.
    """
    if slices > len(clients):
        raise UserError(
            f"server-slices={slices} is not possible; allowed: at most {len(clients)}, the number "
            "of clients: each lies in one slice"
        )
    parts = np.array_split(np.array(clients[::-1]), slices)
    return [part[::-1].tolist() for part in parts[::-1]]


def first_touched(slices: Sequence[Collection[int]], members: Collection[int]) -> int:
    """Return the number of the first slice, from 0, that holds one of `members`."""
    return min(number for number, held in enumerate(slices) if set(held) & set(members))
