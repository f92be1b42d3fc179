"""What a server received: smashed data, each record under a masked label and from a client."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.seeds import derive_seed

Labels = NDArray[np.int64]
Points = NDArray[np.float64]

# Records of one client from which follows in how many directions they vary.
_RECORDS_FOR_SPREAD = 1_000


@dataclass(frozen=True, eq=False)
class Observed:
    """What the server received from its clients.

    `smashed` holds records as they arrived, noise included, flattened to the shape (n, d);
    `masked` the masked label of each, at least 0, and `client` its sender, both of shape (n,).

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


class CanonicalView:
    """What the server received, with masked labels and records in an order of their content.

    An attack that works on this finds the same under any naming of the masked labels and in
    whichever order records came: neither says anything about real labels. Masked labels are
    numbered from 0 to L - 1, clients from 0 to C - 1; those under which nothing came are left out.

    The `smashed` records, float32, shape (n, d), are ordered by client, then by masked label;
    `label` and `client` are theirs, int64, shape (n,). `counts`, int64, shape (L, C), says how many
    records each client sent under each masked label, `names`, int64, shape (L,), what each masked
    label is called in `observed`.
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

    @cached_property
    def sent(self) -> list[Sent]:
        """What each client sent, by masked label."""
        return [
            _sent(self.smashed[rows], self.label[rows], derive_seed(0, "spread", client))
            for client, rows in enumerate(self.rows_of_clients())
        ]


@dataclass(frozen=True, eq=False)
class Sent:
    """What one client sent under each of h masked labels; its segment has a unit of its own."""

    labels: Labels
    """The masked labels, shape (h,)."""
    sizes: Points
    """How many records, shape (h,)."""
    means: Points
    """Their means, shape (h, d), in units of the root mean square of the client's records around
    theirs."""
    scatters: Points
    """The sum of the squared distances of the records to their mean, shape (h,), in that unit."""
    evenness: float
    """``tr(S^2) / tr(S)^2`` of the covariance S of records around the means: 1 over d if all
    directions vary alike, 1 if one does."""


def _mean(records: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(records.mean(axis=0, dtype=np.float64))


def _sent(records: NDArray[np.float32], label: Labels, seed: int) -> Sent:
    labels, places = np.unique(label, return_inverse=True)
    sizes = np.bincount(places)
    parts = np.split(records, np.cumsum(sizes)[:-1])
    means = np.stack([_mean(part) for part in parts])
    scatters = np.array(
        [
            np.square(part - mean.astype(np.float32)).sum(dtype=np.float64)
            for part, mean in zip(parts, means, strict=True)
        ]
    )
    middle = _mean(records)
    around = float(scatters.sum() + sizes @ np.square(means - middle).sum(axis=1))
    unit = np.sqrt(around / records.size) or 1.0

    draws = np.random.default_rng(seed)
    few = min(len(records), _RECORDS_FOR_SPREAD)
    chosen = np.sort(draws.choice(len(records), few, replace=False))
    evenness = _evenness((records[chosen] - means[places[chosen]]) / unit, len(labels))
    return Sent(labels, sizes.astype(np.float64), means / unit, scatters / unit**2, evenness)


def _evenness(residuals: Points, means_taken: int) -> float:
    """Return tr(S^2) / tr(S)^2, the first without bias (Bai and Saranadasa 1996)."""
    lowest, freedom = 1.0 / residuals.shape[1], len(residuals) - means_taken
    trace = float((residuals**2).sum())
    if freedom < 2 or trace == 0:
        return float(lowest)
    products = residuals @ residuals.T
    share = float((products**2).sum()) / trace**2 - 1 / freedom
    return float(np.clip(share * freedom**2 / ((freedom + 2) * (freedom - 1)), lowest, 1.0))
