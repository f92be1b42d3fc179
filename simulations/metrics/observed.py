"""What a server received: smashed data, each record under a masked label and from a client."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from unlearning.exactness import derive_seed

Labels = NDArray[np.int64]
Points = NDArray[np.float64]

# Directions that records are compared along, and the records that those directions follow from.
_DIRECTIONS = 64
_RECORDS_FOR_DIRECTIONS = 2_000


@dataclass(frozen=True, eq=False)
class Observed:
    """What the server received from its clients.

    Parameters
    ----------
    smashed : ndarray of float32, shape (n, d)
        Records as they arrived, noise included, flattened.
    masked : ndarray of int64, shape (n,)
        The masked label of each record, at least 0.
    client : ndarray of int64, shape (n,)
        Who sent each record.

    Raises
    ------
    ValueError
        If there is no record, if shapes do not go together, or if a number is not finite.
    """

    smashed: NDArray[np.float32]
    masked: Labels
    client: Labels

    def __post_init__(self) -> None:
        shape = self.smashed.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"smashed has the shape {shape}; allowed: (n, d), both at least 1")
        for name, column in (("masked", self.masked), ("client", self.client)):
            if column.shape != shape[:1]:
                raise ValueError(f"{name} has the shape {column.shape}; allowed: {shape[:1]}")
            if not np.issubdtype(column.dtype, np.integer):
                raise ValueError(f"{name} holds {column.dtype}; allowed: integers")
        if self.masked.min() < 0:
            raise ValueError(f"masked holds {self.masked.min()}; allowed: at least 0")
        if not np.isfinite(self.smashed).all():
            raise ValueError("smashed holds numbers that are not finite")


class Received:
    """The same, with masked labels and records in an order that follows from their content.

    An attack that works on this finds the same under any naming of the masked labels and in
    whichever order records came: neither says anything about real labels. Masked labels are
    numbered from 0 to L - 1, clients from 0 to C - 1; those under which nothing came are left out.

    Parameters
    ----------
    observed : Observed
        What the server received.

    Attributes
    ----------
    names : ndarray of int64, shape (L,)
        What each masked label is called in `observed`.
    smashed : ndarray of float32, shape (n, d)
        Records, ordered by client, then by masked label.
    label, client : ndarray of int64, shape (n,)
        Of each of these records.
    counts : ndarray of int64, shape (L, C)
        How many records each client sent under each masked label.
    """

    def __init__(self, observed: Observed) -> None:
        rows = np.ascontiguousarray(observed.smashed)
        names, label = np.unique(observed.masked, return_inverse=True)
        _, client = np.unique(observed.client, return_inverse=True)
        # Bytes of one length: an order of records that needs no sum, and ends at the first
        # difference.
        content = np.argsort(rows.view(f"S{rows.itemsize * rows.shape[1]}").ravel(), kind="stable")
        by_label = content[np.argsort(label[content], kind="stable")]
        of_label = np.split(by_label, np.cumsum(np.bincount(label))[:-1])
        keys = [_mean(rows[records]).tobytes() for records in of_label]
        renumbered = np.empty(len(names), dtype=np.int64)
        renumbered[sorted(range(len(names)), key=keys.__getitem__)] = np.arange(len(names))

        position = np.empty(len(rows), dtype=np.int64)
        position[content] = np.arange(len(rows))
        kept = np.lexsort((position, renumbered[label], client))
        self.names = names[np.argsort(renumbered)]
        self.smashed = rows[kept]
        self.label: Labels = renumbered[label][kept]
        self.client: Labels = client[kept].astype(np.int64)
        self.counts = np.zeros((len(names), int(client.max()) + 1), dtype=np.int64)
        np.add.at(self.counts, (self.label, self.client), 1)

    @cached_property
    def means(self) -> Points:
        """The mean record of each masked label, shape (L, d).

        A mean is what noise is smallest in. One might add the spread of each coordinate; it is
        left out because noise of one scale makes up most of it.
        """
        return np.stack(
            [_mean(self.smashed[self.label == label]) for label in range(len(self.names))]
        )

    def rows_of_clients(self) -> list[slice]:
        """Return where the records of each client are."""
        ends = np.cumsum(self.counts.sum(axis=0)).tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def projected(self, seed: int) -> list[Points]:
        """Return the records of each client along the directions in which they differ most.

        Each client has a segment of its own, so each has directions of its own: the first 64
        principal ones, of 2,000 records if it sent more. In them a copy of a record stays near it
        and most of the noise on the two is left out; and they bound the cost. Lengths are in units
        of the root mean square of the client's own.

        Parameters
        ----------
        seed : int
            Of the choice of records and of the randomised decomposition.

        Returns
        -------
        list of ndarray of float64, shape (records of the client, at most 64)
            In the order of `smashed`.
        """
        return [
            _scaled(_along_directions(self.smashed[rows], derive_seed(seed, "directions", number)))
            for number, rows in enumerate(self.rows_of_clients())
        ]


def _mean(records: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(records.mean(axis=0, dtype=np.float64))


def _along_directions(records: NDArray[np.float32], seed: int) -> Points:
    mean = _mean(records)
    if records.shape[1] <= _DIRECTIONS:
        return records - mean
    draws = np.random.default_rng(seed)
    few = min(len(records), _RECORDS_FOR_DIRECTIONS)
    chosen = records[np.sort(draws.choice(len(records), few, replace=False))] - mean
    _, _, directions = randomized_svd(
        chosen, min(_DIRECTIONS, few), random_state=int(draws.integers(2**32))
    )
    along = directions.T
    # In float32: a copy of all records in float64 would take twice the memory that they take.
    return np.asarray(records @ along.astype(np.float32) - mean @ along, dtype=np.float64)


def _scaled(points: Points) -> Points:
    scale = float(np.sqrt(np.mean(points**2)))
    return points / scale if scale > 0 else points
