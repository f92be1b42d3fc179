"""Label consensus: clients agree on all their labels; nobody learns who holds which (Algorithm 3).

A pool of labels goes round. On its visit a client adds some of its missing labels, or none, or says
that it is done, at random: the order of additions then tells little about who holds a label. The
pool travels sealed (`clients.label_privacy.sealing`), and has the same length empty and full.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from split_unlearning.foundations.options import Settings, between, positive, setting


@dataclass(frozen=True, kw_only=True)
class ConsensusSettings(Settings):
    """Parameters of label consensus."""

    add: float = setting(
        between(0.8, "0 < x <= 1", "λ1, how likely a client adds labels on a visit"),
        "consensus-add",
    )
    finish: float = setting(
        between(0.8, "0 < x <= 1", "λ2, how likely one that misses none says so"),
        "consensus-finish",
    )
    most: int = setting(positive(3, "μ, labels a client adds at most on a visit"), "consensus-most")


@dataclass(frozen=True)
class Pool:
    """The pool that goes round.

    `labels` is Y, the labels that were added; `done` has the positions in the round of the clients
    that have no missing label and have said so.
    """

    labels: frozenset[int] = frozenset()
    done: frozenset[int] = frozenset()

    def pack(self, num_labels: int, clients: int) -> bytes:
        """Return the pool as bytes, one bit for each possible entry: the length tells nothing."""
        bits = np.zeros(num_labels + clients, dtype=bool)
        bits[[*self.labels, *(num_labels + client for client in self.done)]] = True
        return np.packbits(bits).tobytes()

    @classmethod
    def unpack(cls, text: bytes, num_labels: int, clients: int) -> Pool:
        """Read the result of `pack`.

        Raises
        ------
        ValueError
            If it was packed for another number of labels or clients.
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
    """Return the pool after a visit to one client (Algorithm 3, one turn of one client).

    `place` is the client's position in the round, `own` is Y_k, its labels, and `draws` a generator
    that nobody else can repeat.
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
