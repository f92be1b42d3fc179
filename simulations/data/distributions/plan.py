"""Who holds which samples of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Plan:
    """For each client, the ids that it holds of each split, sorted."""

    train: tuple[NDArray[np.int64], ...]
    test: tuple[NDArray[np.int64], ...]

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.train)

    def label_counts(
        self, labels: NDArray[np.int64], split: Literal["train", "test"], num_classes: int
    ) -> NDArray[np.int64]:
        """Count each client's samples of each label, shape (clients, classes).

        `labels` are those of the whole split; the index is the sample's id.
        """
        held = self.train if split == "train" else self.test
        return np.stack([np.bincount(labels[ids], minlength=num_classes) for ids in held])


def by_shares(
    labels: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], ...]:
    """Deal one split out by each client's share of each label; return each client's ids, sorted.

    Each column of `shares`, shape (clients, classes), sums to 1. A client with a share gets a
    sample of the label, as far as there are some. The generator says which, within a label.
    """
    held: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    # What rounding withheld from each client so far. The client that is owed most gets the next odd
    # sample, or else the same clients would go without under every label.
    owed = np.zeros(len(shares))
    for label in range(shares.shape[1]):
        ids = rng.permutation(np.flatnonzero(labels == label))
        holders = np.flatnonzero(shares[:, label])
        spare = len(ids) - len(holders)
        if spare >= 0:
            # One each before shares count: a holder of a label has a sample of it.
            ideal = 1 + spare * shares[holders, label]
        else:
            ideal = np.full(len(holders), len(ids) / len(holders))
        counts = np.floor(ideal).astype(np.int64)
        owed[holders] += ideal - counts
        odd = np.argsort(-owed[holders], kind="stable")[: len(ids) - counts.sum()]
        counts[odd] += 1
        owed[holders[odd]] -= 1
        for client, part in zip(holders, np.split(ids, np.cumsum(counts)[:-1]), strict=True):
            held[client].append(part)
    none = np.empty(0, dtype=np.int64)
    return tuple(np.sort(np.concatenate([none, *parts])) for parts in held)
