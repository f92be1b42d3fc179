"""SISA's slices: training in steps, so that forgetting starts again from the step before.

What is learned from is cut into slices. Step s trains, with a fresh optimiser, on slices 1 to s,
and its weights are kept; a request that touches slice s and none before it starts again from what
step s - 1 left. Exact: in which slice a sample is, and every draw, depends on no other sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from models.errors import UserError
from unlearning.exactness import Ids, mixed
from unlearning.stages import Stage


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


def epochs_of(slices: int, epochs: int) -> list[int]:
    """Return how many epochs each step trains: as many sample visits in each step.

    Step s visits s slices, so it gets ``epochs / s`` epochs, rounded, at least one; in all about as
    many visits as `epochs` over everything. With as many epochs in each step instead, a request
    would redo more: (S + 1) / (2 S) of all visits on average here (0.6 for five slices), 1 / S for
    the last slice (0.2), against 0.73 and 0.33.
    """
    return [max(1, int(epochs / step + 0.5)) if epochs else 0 for step in range(1, slices + 1)]


def step_of(stage: Stage, number: int, slices: int) -> Stage:
    """Return a step of a stage that is taken slice by slice; with one slice it is the stage."""
    return replace(stage, name=f"{stage.name}-{number + 1}") if slices > 1 else stage


def dealt(clients: Sequence[int], slices: int) -> list[list[int]]:
    """Deal clients to the server's slices, each client whole to one.

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
    return [part.tolist() for part in np.array_split(np.array(clients), slices)]


def first_touched(slices: Sequence[Collection[int]], members: Collection[int]) -> int:
    """Return the number of the first slice that holds one of `members`, from 0."""
    return min(number for number, held in enumerate(slices) if set(held) & set(members))
