"""SISA's slices: training in steps, so that forgetting starts again from the step before.

What is learned from is cut into slices. Step s trains, with a fresh optimiser, on slices 1 to s,
and its weights are kept; a request that touches slice s and none before it starts again from what
step s - 1 left. Exact: in which slice a sample is, and every draw, depends on no other sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.exactness import Ids, mixed
from split_unlearning.unlearning.stages import Stage

# How many of all visits steps take, in proportion.
_FIRST_AND_LAST, _BETWEEN = 7, 2


def slice_of(ids: Ids, slices: int, seed: int) -> Ids:
    """Return in which slice each sample is, from 0.

    Parameters
    ----------
    ids : array of int64, shape (n,)
        Sample ids.
    slices : int
        How many slices there are.
    seed : int
        From `derive_seed`.

    Returns
    -------
    array of int64, shape (n,)
        It follows from a sample's own id alone: about as many samples in each slice.
    """
    return (mixed(ids, seed) % np.uint64(slices)).astype(np.int64)


def epochs_of(sizes: Sequence[int], epochs: int) -> list[int]:
    """Return how many epochs each step trains: most in the first step and in the last.

    Of all sample visits the first and the last step take 3.5 times as many each as one between. A
    step visits its slice and all before it, so its epochs are these visits over how much it has
    seen; rounded down, at least one. In all that is no more visits than `epochs` over everything,
    unless there are fewer epochs than slices.

    The last step is the one that sees everything: the longer it is the nearer is what is learned to
    what is learned without slices, and the more does each request redo. What the first takes keeps
    the mean over the slices where it is with as many visits in each, ``(S + 1) / 2S``. Of five
    slices a request redoes 0.56 of all visits on average and 0.33 for the last slice. As many
    visits in each step would be 0.59 and 0.2, and lose accuracy (docs/measurements.md); as many
    epochs in each 0.73 and 0.33.

    Parameters
    ----------
    sizes : sequence of int
        How large each slice is, in units of anything: samples, clients. Nothing that forgetting
        changes.
    epochs : int
        Over everything, if it were one slice.
    """
    steps, everything = len(sizes), sum(sizes)
    parts = [_BETWEEN] * steps
    parts[0] = parts[-1] = _FIRST_AND_LAST
    return [
        max(1, epochs * everything * part // (sum(parts) * visited)) if epochs else 0
        for part, visited in zip(parts, accumulate(sizes), strict=True)
    ]


def step_of(stage: Stage, number: int, slices: int) -> Stage:
    """Return a step of a stage that is taken slice by slice; with one slice it is the stage."""
    return replace(stage, name=f"{stage.name}-{number + 1}") if slices > 1 else stage


def dealt(clients: Sequence[int], slices: int) -> list[list[int]]:
    """Deal clients to the server's slices, each client whole to one, the larger slices last.

    Parameters
    ----------
    clients : sequence of int
        The most stable first: a request of the last redoes least.
    slices : int
        How many slices, at most as many as clients.

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
    """Return the number of the first slice that holds one of `members`, from 0."""
    return min(number for number, held in enumerate(slices) if set(held) & set(members))
