"""Exactness of retraining: seeds, orders and batches that depend on no other sample.

Exact unlearning gives, bit for bit, what training from scratch without the forgotten samples gives.
So the purpose of a random draw (a client, an epoch, a step) never says whether this is learning or
forgetting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.foundations.seeds import derive_seed

Ids = NDArray[np.int64]


def order(ids: Ids, seed: int) -> NDArray[np.intp]:
    """Return positions in a random order, in which the order of two never depends on a third.

    The hashes of ids (each once) and seed are sorted, so that removing samples leaves the others in
    order.
    """
    return np.argsort(mixed(ids, seed), kind="stable")


def mixed(ids: Ids, seed: int) -> NDArray[np.uint64]:
    """Return a pseudo-random number for each sample id, from the id and the seed alone.

    The finaliser of SplitMix64: a bijection of 64-bit integers, so no two ids collide.
    """
    number = ids.astype(np.uint64) ^ np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = (number ^ (number >> np.uint64(shift))) * np.uint64(factor)
    return number ^ (number >> np.uint64(31))


def batches(samples: int, batch_size: int) -> Iterator[slice]:
    """Yield the slices of an epoch's batches.

    A last batch of one sample joins the batch before it: batch norm cannot take one sample.
    """
    starts = list(range(0, samples, batch_size))
    if len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()
    for number, start in enumerate(starts, start=1):
        yield slice(start, starts[number] if number < len(starts) else samples)


def visits(
    ids: Ids, batch_size: int, seed: int, stage: str, client: int, epoch: int
) -> Iterator[NDArray[np.intp]]:
    """Yield the batches of one epoch of a client, as positions in `ids`; epochs count from 0."""
    places = order(ids, derive_seed(seed, "order", stage, client, epoch))
    for batch in batches(len(places), batch_size):
        yield places[batch]


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a segment's weights: names, shapes, types and every bit."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
