"""What counts tell: masked labels that come from the same clients, or equally many records."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from split_unlearning.evaluation.clusterings import joined_up
from split_unlearning.evaluation.observed import CanonicalView, Labels, Points


def same_clients(received: CanonicalView) -> Labels:
    """Put masked labels together under which the same clients sent.

    All masked labels of a real label come from the clients that hold it. With
    heterogeneous labels that is one client.
    """
    return _rows_alike((received.counts > 0).astype(np.int64))


def same_counts(received: CanonicalView) -> Labels:
    """Put masked labels together under which each client sent as many records.

    A client that sends each record once under every masked label of its real label sends as many
    under each, whatever the noise; two real labels with the same numbers cannot be told apart by
    this.
    """
    return _rows_alike(received.counts)


def within_same_clients(received: CanonicalView, choose: Callable[[Points, int], Labels]) -> Labels:
    """Cluster the masked labels of each set of clients on their own.

    `choose` clusters descriptions (n, d) of the masked labels of one set of clients, given its
    number. The description is the mean records of the clients side by side: each has a segment of
    its own.
    """
    groups = same_clients(received)
    clusters = np.zeros_like(groups)
    for group in range(int(groups.max()) + 1):
        inside = np.flatnonzero(groups == group)
        found = choose(_side_by_side(received, inside), group)
        clusters[inside] = int(clusters.max()) + 1 + found
    return clusters


def joined_by_clients(received: CanonicalView, number: int) -> Labels:
    """Join masked labels to so many clusters, those of the same clients before any others.

    Two of the same clients are as far apart as their descriptions (`within_same_clients`; the root
    mean square over the clients), over the largest of these distances; two others 2 less the
    share of their clients that they have in common. Joined on average.
    """
    sent = (received.counts > 0).astype(np.int64)
    common = sent @ sent.T
    either = sent.sum(axis=1)[:, None] + sent.sum(axis=1) - common
    distances = 2 - common / either
    groups = same_clients(received)
    near = np.zeros(distances.shape)
    for group in range(int(groups.max()) + 1):
        inside = np.flatnonzero(groups == group)
        described = _side_by_side(received, inside)
        apart = euclidean_distances(described)
        near[np.ix_(inside, inside)] = apart / np.sqrt(sent[inside[0]].sum())
    largest = float(near.max())
    same = groups[:, None] == groups
    distances[same] = near[same] / (largest if largest > 0 else 1)
    return joined_up(distances, number)


def vanished(before: Collection[int], after: Collection[int]) -> frozenset[int]:
    """Return the masked labels that a server saw before a request and does not see after it.

    Those of a real label that was forgotten vanish together, and are one cluster to any observer.
    """
    return frozenset(before) - frozenset(after)


def gives_away(before: Collection[int], after: Collection[int], real_of: Labels) -> bool:
    """Return whether what vanished is exactly the masked labels, then seen, of one real label.

    `real_of`, of shape (E,), is the real label of each masked label.
    """
    gone = vanished(before, after)
    real = {int(real_of[masked]) for masked in gone}
    return len(real) == 1 and gone == {masked for masked in before if int(real_of[masked]) in real}


def _rows_alike(rows: Labels) -> Labels:
    return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1].ravel(), dtype=np.int64)


def _side_by_side(received: CanonicalView, labels: Labels) -> Points:
    clients = np.flatnonzero(received.counts[labels[0]])
    sent = [received.sent[client] for client in clients]
    return np.concatenate(
        [of_client.means[np.searchsorted(of_client.labels, labels)] for of_client in sent], axis=1
    )
