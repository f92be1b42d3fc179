"""The distributions of labels that the SplitWiper paper compares, and an even one."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.data.distributions.distribution import Dealing, Distribution
from split_unlearning.simulations.data.distributions.plan import Plan, by_shares

_MOST_HOLDERS = 3


class LabelDistribution(Distribution):
    """Gives every client a share of every label.

    Both splits follow the same shares, up to rounding. Except under ``iid``, the requesting client
    alone holds the forgotten labels. Where clients outnumber labels, clients without a label of
    their own share one: under ``partial-overlap`` a label then lies on more than three clients if
    there are more than three clients a label. A single client holds everything.
    """

    remedy: ClassVar[str] = "fewer clients or forgotten labels"

    @classmethod
    @abstractmethod
    def shares(
        cls, dealing: Dealing, alone: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return each client's share of each label, shape (clients, classes).

        `alone`, of that shape, says which labels the requesting client holds alone.
        """

    @classmethod
    def deal(cls, dealing: Dealing) -> Plan:
        """Deal the samples out by shares of labels."""
        rng = np.random.default_rng([dealing.seed, zlib.crc32(cls.name.encode())])
        forgotten = sorted(dealing.forgotten_labels)
        alone = np.zeros((dealing.num_clients, dealing.num_classes), dtype=bool)
        alone[dealing.requesting_client, forgotten] = True
        shares = cls.shares(dealing, alone, rng)
        plan = Plan(by_shares(dealing.y_train, shares, rng), by_shares(dealing.y_test, shares, rng))
        empty = [client for client, ids in enumerate(plan.train) if len(ids) == 0]
        if empty:
            more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
            raise UserError(
                f"num-supernodes={dealing.num_clients}, distribution={cls.name!r} would leave "
                f"client {empty[0]}{more} without a sample to train on: there are "
                f"{len(dealing.y_train)} samples, {np.isin(dealing.y_train, forgotten).sum()} of "
                f"them with a label to forget; allowed: {cls.remedy}"
            )
        return plan


class Stratified(LabelDistribution):
    """Every label is dealt evenly to every client, forgotten labels too."""

    name = "iid"
    remedy = "fewer clients"

    @classmethod
    def shares(
        cls, dealing: Dealing, alone: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return even shares."""
        return np.full(alone.shape, 1 / dealing.num_clients)


class HomogeneousLabels(LabelDistribution):
    """Every client holds every label, volumes differ."""

    name = "homogeneous-labels"

    @classmethod
    def shares(
        cls, dealing: Dealing, alone: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw how much each client holds, none below half of an even share."""
        volumes = 0.5 / len(alone) + 0.5 * rng.dirichlet(np.ones(len(alone)))
        return np.where(alone.any(axis=0), alone, volumes[:, None])


class _WholeLabels(LabelDistribution):
    """Every holder of a label holds as much of it as the others."""

    @classmethod
    def shares(
        cls, dealing: Dealing, alone: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        others = rng.permutation(np.flatnonzero(~alone.any(axis=0)))
        counts = np.bincount(dealing.y_train, minlength=dealing.num_classes)
        holders = cls.holders(alone.copy(), others, counts, rng)
        return np.asarray(holders / holders.sum(axis=0))

    @classmethod
    @abstractmethod
    def holders(
        cls,
        holders: NDArray[np.bool_],
        others: NDArray[np.int64],
        counts: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.bool_]:
        """Add the holders of the other labels; `counts` are the train samples of each label."""


class HeterogeneousLabels(_WholeLabels):
    """Labels are dealt out without overlap."""

    name = "heterogeneous-labels"

    @classmethod
    def holders(
        cls,
        holders: NDArray[np.bool_],
        others: NDArray[np.int64],
        counts: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.bool_]:
        """Overlap no more than the number of labels demands."""
        clients = rng.permutation(len(holders))
        # Labels without a train sample go last, so that they are nobody's first label.
        for label in others[np.argsort(counts[others] == 0, kind="stable")]:
            fewest = clients[np.argmin(holders[clients].sum(axis=1))]
            holders[fewest, label] = True
        for client in clients:
            if not counts[holders[client]].any():
                _join(client, holders, others, counts)
        return holders


class PartialOverlap(_WholeLabels):
    """Each label lies on 1 to 3 random clients."""

    name = "partial-overlap"

    @classmethod
    def holders(
        cls,
        holders: NDArray[np.bool_],
        others: NDArray[np.int64],
        counts: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.bool_]:
        """Draw a few holders of each label."""
        clients = rng.permutation(len(holders))
        # A client with forgotten labels goes last: it is not left empty if nothing else remains.
        for client in clients[np.argsort(holders[clients].any(axis=1), kind="stable")]:
            _join(client, holders, others, counts)
        for label in others:
            # More holders than samples would take a label away from a client that has no other.
            most = min(_MOST_HOLDERS, len(holders), max(counts[label], 1))
            wanted = rng.integers(1, most + 1) - holders[:, label].sum()
            if wanted > 0:
                free = np.flatnonzero(~holders[:, label])
                holders[rng.choice(free, wanted, replace=False), label] = True
        return holders


def _join(
    client: int,
    holders: NDArray[np.bool_],
    others: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Make a client one more holder of the least shared label that has a sample left for it."""
    already = holders[:, others].sum(axis=0)
    room = counts[others] > already
    if room.any():
        holders[client, others[np.argmin(np.where(room, already, np.inf))]] = True
