"""Who holds which samples: a data set dealt out to clients."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import StringIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.dataset import Samples

DISTRIBUTIONS: dict[str, str] = {
    "homogeneous-labels": "every client holds every label, volumes differ",
    "partial-overlap": "each label lies on 1 to 3 random clients",
    "heterogeneous-labels": "labels are dealt out without overlap",
    "iid": "every label is dealt evenly to every client, forgotten ones too",
}

_MOST_HOLDERS = 3
_SHOWN_CLIENTS = 20
_SHOWN_CLASSES = 12


@dataclass(frozen=True, eq=False)
class Plan:
    """The samples of each client.

    Parameters
    ----------
    train, test : tuple of ndarray of int64
        For each client the ids that it holds of that split, sorted.
    """

    train: tuple[NDArray[np.int64], ...]
    test: tuple[NDArray[np.int64], ...]

    @property
    def num_clients(self) -> int:
        """How many clients there are."""
        return len(self.train)

    def label_counts(
        self, labels: NDArray[np.int64], split: Literal["train", "test"], num_classes: int
    ) -> NDArray[np.int64]:
        """Count each client's samples of each label.

        Parameters
        ----------
        labels : ndarray of int64
            The labels of the whole split; the index is the sample's id.
        split : {"train", "test"}
            Which split they are of.
        num_classes : int
            How many labels there are.

        Returns
        -------
        ndarray of int64, shape (clients, classes)
        """
        held = self.train if split == "train" else self.test
        return np.stack([np.bincount(labels[ids], minlength=num_classes) for ids in held])


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
    """Deal the samples out, each to exactly one client.

    Both splits follow the same shares, up to rounding. But for ``iid``, the requesting client alone
    holds the forgotten labels; the distribution speaks of the others. Where clients outnumber
    labels, those without a label of their own share one: under ``partial-overlap`` a label then
    lies on more than three clients if there are more than three clients a label. A single client
    holds everything.

    Parameters
    ----------
    y_train, y_test : ndarray of int64, shape (samples,)
        The labels of both splits.
    num_classes : int
        How many labels there are.
    distribution : str
        One of `DISTRIBUTIONS`.
    num_clients : int
        How many clients hold samples.
    requesting_client : int
        The client that asks to forget.
    forgotten_labels : frozenset of int
        The labels it asks to forget; may be empty.
    seed : int
        Of every random draw, not negative.

    Returns
    -------
    Plan
        No client is without a train sample; one is without a test sample where there are few.

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
    """Say who holds which label when labels overlap no more than they must."""
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
    """Say who holds which label when each label lies on a few clients."""
    holders = alone.copy()
    clients = rng.permutation(len(holders))
    # Who has forgotten labels goes last: it is not left empty if nothing else remains.
    for client in clients[np.argsort(alone[clients].any(axis=1), kind="stable")]:
        _join(client, holders, others, counts)
    for label in others:
        # More holders than samples would take a label away from who has no other.
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


def by_shares(
    labels: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], ...]:
    """Deal one split out by each client's share of each label.

    Parameters
    ----------
    labels : ndarray of int64, shape (samples,)
        The labels of the split.
    shares : ndarray of float64, shape (clients, classes)
        Of each label; each column sums to 1. Who has one gets a sample, as far as there are some.
    rng : numpy.random.Generator
        Says which samples, within a label.

    Returns
    -------
    tuple of ndarray of int64
        For each client the ids that it holds, sorted.
    """
    held: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    # What rounding withheld from each client so far. Whoever is owed most gets the next odd sample,
    # or else the same clients would go without under every label.
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
    nothing = np.empty(0, dtype=np.int64)
    return tuple(np.sort(np.concatenate([nothing, *parts])) for parts in held)


def plan_table(plan: Plan, dataset: Samples) -> str:
    """Show who holds how much.

    Parameters
    ----------
    plan : Plan
        Who holds which samples.
    dataset : Samples
        Whose samples they are.

    Returns
    -------
    str
        Plain text without colours: a row a client, train samples by label, totals of both splits.
        Many labels are counted instead of listed, and of many clients the first are shown.
    """
    by_label = plan.label_counts(dataset.y_train, "train", dataset.num_classes)
    in_test = np.array([len(ids) for ids in plan.test])
    listed = dataset.num_classes <= _SHOWN_CLASSES
    width = max(1, 72 // dataset.num_classes - 1)
    names = [name[:width] for name in dataset.class_names] if listed else ["labels"]

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for header in ("client", *names, "train", "test"):
        table.add_column(header, justify="right")

    def add(title: str, row: NDArray[np.int64], test: int) -> None:
        cells = row if listed else [np.count_nonzero(row)]
        table.add_row(title, *(str(cell or "-") for cell in cells), str(row.sum()), str(test))

    for client in range(min(plan.num_clients, _SHOWN_CLIENTS)):
        add(str(client), by_label[client], in_test[client])
    add("all", by_label.sum(axis=0), in_test.sum())

    text = StringIO()
    Console(
        file=text, width=100, color_system=None, force_terminal=False, markup=False, emoji=False
    ).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    hidden = plan.num_clients - _SHOWN_CLIENTS
    if hidden > 0:
        lines.insert(-1, f"... and {hidden} more clients")
    return "\n".join(lines)
