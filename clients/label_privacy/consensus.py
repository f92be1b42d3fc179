"""Label consensus: clients agree on all their labels; nobody learns whose is whose (Algorithm 3).

A pool of labels goes round. Whoever it comes to adds some of its labels that are missing, or none,
or says that it is done, as chance will have it: from what is added when, little can be told of who
holds what. The pool travels sealed (`clients.label_privacy.sealing`), and is as long empty as full.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ConsensusSettings:
    """How the pool goes round.

    Parameters
    ----------
    add : float
        λ1, how likely a client adds labels on a visit, 0 < λ1 <= 1.
    finish : float
        λ2, how likely a client that misses none of its labels says so, 0 < λ2 <= 1.
    most : int
        μ, how many labels it adds at most on one visit.
    """

    add: float
    finish: float
    most: int


@dataclass(frozen=True)
class Pool:
    """What goes round.

    Parameters
    ----------
    labels : frozenset of int
        Y, the labels that were added.
    done : frozenset of int
        The clients that miss none of theirs and have said so, by their place in the round.
    """

    labels: frozenset[int] = frozenset()
    done: frozenset[int] = frozenset()

    def pack(self, num_labels: int, clients: int) -> bytes:
        """Return it as a text whose length follows from what could be in it: a bit for each."""
        bits = np.zeros(num_labels + clients, dtype=bool)
        bits[[*self.labels, *(num_labels + one for one in self.done)]] = True
        return np.packbits(bits).tobytes()

    @classmethod
    def unpack(cls, text: bytes, num_labels: int, clients: int) -> Pool:
        """Read what `pack` wrote.

        Raises
        ------
        ValueError
            If it was written for other numbers of labels and clients.
        """
        if len(text) != len(cls().pack(num_labels, clients)):
            raise ValueError(
                f"a pool of {len(text)} bytes does not hold {num_labels} labels of {clients} "
                "clients: they do not know the same list of labels"
            )
        bits = np.unpackbits(np.frombuffer(text, dtype=np.uint8))
        places = np.flatnonzero(bits).tolist()
        return cls(
            frozenset(place for place in places if place < num_labels),
            frozenset(place - num_labels for place in places if place >= num_labels),
        )


def visited(
    pool: Pool,
    place: int,
    own: Collection[int],
    settings: ConsensusSettings,
    draws: np.random.Generator,
) -> Pool:
    """Return the pool after it has come to a client (Algorithm 3, one turn of one client).

    Parameters
    ----------
    pool : Pool
        As it came.
    place : int
        The client's place in the round.
    own : collection of int
        Y_k, the labels that the client holds.
    settings : ConsensusSettings
        λ1, λ2 and μ.
    draws : Generator
        The client's own, which nobody else can repeat.
    """
    if place in pool.done:
        return pool
    labels, done = pool.labels, pool.done
    missing = sorted(set(own) - labels)
    if draws.random() < settings.add:
        wanted = int(draws.integers(1, min(max(len(missing), 1), settings.most) + 1))
        labels |= frozenset(draws.permutation(missing)[:wanted].tolist())
    if draws.random() < settings.finish and labels.issuperset(own):
        done |= {place}
    return Pool(labels, done)
