"""The distributions of labels that the SplitWiper paper compares, and an even one."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.distributions.plan import Plan, by_shares

DISTRIBUTIONS: dict[str, str] = {
    "homogeneous-labels": "every client holds every label, volumes differ",
    "partial-overlap": "each label lies on 1 to 3 random clients",
    "heterogeneous-labels": "labels are dealt out without overlap",
    "iid": "every label is dealt evenly to every client, forgotten ones too",
}

_MOST_HOLDERS = 3


def make_plan(
    y_train: NDArray[np.int64],
    y_test: NDArray[np.int64],
    *,
    num_classes: int,
    distribution: str,
    num_clients: int,
    requesting_client: int,
    forgotten_labels: frozenset[int],
    seed: int,
) -> Plan:
    """Deal the samples out, each to exactly one client, by one of `DISTRIBUTIONS`.

    Both splits follow the same shares, up to rounding. Except under ``iid``, the requesting client
    alone holds the forgotten labels. Where clients outnumber labels, clients without a label of
    their own share one: under ``partial-overlap`` a label then lies on more than three clients if
    there are more than three clients a label. A single client holds everything.

    Returns
    -------
    Plan
        No client is without a train sample; where there are few, some have no test sample.

    Raises
    ------
    UserError
        If a value is impossible, or a client would be left without a train sample.
    """
    if distribution not in DISTRIBUTIONS:
        raise refuse("distribution", distribution, ", ".join(DISTRIBUTIONS))
    if num_clients < 1:
        raise refuse("num-supernodes", num_clients, "an integer >= 1")
    if not 0 <= requesting_client < num_clients:
        allowed = f"0 to {num_clients - 1}, for num-supernodes={num_clients}"
        raise refuse("forget-client", requesting_client, allowed)
    for label in sorted(forgotten_labels):
        if not 0 <= label < num_classes:
            raise refuse("forget", f"class:{label}", f"a label from 0 to {num_classes - 1}")

    rng = np.random.default_rng([seed, zlib.crc32(distribution.encode())])
    forgotten = np.isin(np.arange(num_classes), sorted(forgotten_labels))
    if distribution == "iid":
        shares = np.full((num_clients, num_classes), 1 / num_clients)
    else:
        alone = np.zeros((num_clients, num_classes), dtype=bool)
        alone[requesting_client, forgotten] = True
        if distribution == "homogeneous-labels":
            shares = np.where(forgotten, alone, _volumes(num_clients, rng)[:, None])
        else:
            give = _overlapping if distribution == "partial-overlap" else _separate
            others = rng.permutation(np.flatnonzero(~forgotten))
            counts = np.bincount(y_train, minlength=num_classes)
            holders = give(alone, others, counts, rng)
            shares = holders / holders.sum(axis=0)

    plan = Plan(train=by_shares(y_train, shares, rng), test=by_shares(y_test, shares, rng))
    empty = [client for client, ids in enumerate(plan.train) if len(ids) == 0]
    if empty:
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        remedy = "fewer clients" if distribution == "iid" else "fewer clients or forgotten labels"
        raise UserError(
            f"num-supernodes={num_clients}, distribution={distribution!r} would leave client "
            f"{empty[0]}{more} without a sample to train on: there are {len(y_train)} samples, "
            f"{np.isin(y_train, sorted(forgotten_labels)).sum()} of them with a label to forget; "
            f"allowed: {remedy}"
        )
    return plan


def _volumes(num_clients: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how much each client holds: shares that sum to 1, none below half of an even one."""
    return 0.5 / num_clients + 0.5 * rng.dirichlet(np.ones(num_clients))


def _separate(
    alone: NDArray[np.bool_],
    others: NDArray[np.int64],
    counts: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return who holds which label when labels overlap no more than they must."""
    holders = alone.copy()
    clients = rng.permutation(len(holders))
    # Labels without a train sample go last, so that they are nobody's first label.
    for label in others[np.argsort(counts[others] == 0, kind="stable")]:
        fewest = clients[np.argmin(holders[clients].sum(axis=1))]
        holders[fewest, label] = True
    for client in clients:
        if not counts[holders[client]].any():
            _join(client, holders, others, counts)
    return holders


def _overlapping(
    alone: NDArray[np.bool_],
    others: NDArray[np.int64],
    counts: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return who holds which label when each label lies on a few clients."""
    holders = alone.copy()
    clients = rng.permutation(len(holders))
    # A client with forgotten labels goes last: it is not left empty if nothing else remains.
    for client in clients[np.argsort(alone[clients].any(axis=1), kind="stable")]:
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
