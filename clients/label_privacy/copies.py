"""Copies: how a record is assigned to the masked labels of its label, and its pseudonym.

- ``replicate`` (the paper): one copy under each, each with fresh noise;
- ``partition``: one copy, under a masked label drawn for the record;
- ``modes``: one copy, under the masked label of its mode, a group of similar records.

Noise does not hide the choice of ``modes``, although it follows from the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from split_unlearning.clients.label_privacy.label_map import LabelMap
from split_unlearning.clients.label_privacy.secrets import derive_key, numbers
from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Option, one_of
from split_unlearning.unlearning.exactness import Ids

Copies = Literal["replicate", "partition", "modes"]

COPIES: Mapping[str, Option] = {
    "copies": one_of(
        "modes",
        get_args(Copies),
        "a record goes under all masked labels of its label, one at random, or that of its mode",
    )
}

_PSEUDONYM_BITS = 40


@dataclass(frozen=True)
class Assignment:
    """The rows of one upload, sorted by pseudonym; only masked labels and pseudonyms leave.

    Each array is int64, shape (m,). `rows` are the records' positions, `copy` the numbers of their
    copies from 0. Pseudonyms are unique in the upload, from 0, below 2**40.
    """

    rows: NDArray[np.int64]
    ids: Ids
    copy: NDArray[np.int64]
    masked: NDArray[np.int64]
    pseudonyms: NDArray[np.int64]


def assign(
    copies: Copies,
    smashed: NDArray[np.float32] | None,
    labels: NDArray[np.int64],
    ids: Ids,
    label_map: LabelMap,
    secret: bytes,
    generation: int,
) -> Assignment:
    """Assign records to masked labels and pseudonyms for one upload.

    The order of the records changes nothing but `Assignment.rows`. With ``replicate`` and
    ``partition`` the labels of a record depend on no other record. Smashed data, float32, shape (n,
    ...), are clipped and without noise; only ``modes`` needs them. Labels are real ones; the ids of
    records, int64, shape (n,), are there once each. The secret is the client's own. `generation` is
    the number of the client's upload, from 0: each has pseudonyms and draws of its own.

    Raises
    ------
    UserError
        If `copies` is unknown, or a label is not in the map.
    ValueError
        If arrays do not fit together, an id is there twice, or `generation` is below 0.
    """
    if copies not in get_args(Copies):
        raise refuse("copies", copies, ", ".join(get_args(Copies)))
    if generation < 0:
        raise ValueError(f"generation {generation}")
    if len(labels) != len(ids) or len(np.unique(ids)) != len(ids):
        raise ValueError(f"{len(labels)} labels and {len(ids)} ids, of which each has to be once")
    label_map.check(labels)
    # Sorted by id, so that the order of the records does not matter.
    by_id = np.argsort(ids, kind="stable").astype(np.int64)
    rows, masked, copy = [by_id[:0]], [by_id[:0]], [by_id[:0]]
    for label in np.unique(labels).tolist():
        of_label = by_id[labels[by_id] == label]
        choices = np.array(label_map.masked_of(label), dtype=np.int64)
        if copies == "replicate":
            taken, number = np.tile(choices, len(of_label)), np.arange(len(choices))
            rows.append(np.repeat(of_label, len(choices)))
            copy.append(np.tile(number, len(of_label)))
        else:
            if copies == "partition":
                draws = numbers(secret, ids[of_label], "partition", generation)
                taken = choices[(draws % np.uint64(len(choices))).astype(np.int64)]
            elif smashed is None or len(smashed) != len(ids):
                raise ValueError("modes have to be given the smashed data of every record")
            else:
                order = np.argsort(numbers(secret, choices, "modes", generation), kind="stable")
                seed = derive_key(secret, "modes", generation, label)
                taken = choices[order][modes(smashed[of_label], len(choices), seed)]
            rows.append(of_label)
            copy.append(np.zeros(len(of_label), dtype=np.int64))
        masked.append(taken)
    place, number = np.concatenate(rows), np.concatenate(copy)
    names = pseudonyms(secret, ids[place], number, generation)
    order = np.argsort(names, kind="stable")
    return Assignment(
        place[order],
        ids[place][order],
        number[order],
        np.concatenate(masked)[order],
        names[order],
    )


def modes(records: NDArray[np.float32], groups: int, seed: bytes) -> NDArray[np.int64]:
    """Return the group of each record by KMeans, the same bits with any number of threads.

    It runs in float64 and on one thread, since threads add up sums in the order in which they
    finish. Records are float32, shape (n, ...), at least one. There are at most `groups` groups
    from 0, fewer where fewer records differ. The seed has at least 4 bytes.
    """
    wide = records.reshape(len(records), -1).astype(np.float64)
    groups = _different(wide, groups)
    if groups == 1:
        return np.zeros(len(records), dtype=np.int64)
    # The imports take long, and few clients cluster.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    state = int.from_bytes(seed[:4], "little")
    with threadpool_limits(limits=1):
        fitted = KMeans(groups, n_init=1, random_state=state, copy_x=False).fit(wide)
    return np.asarray(fitted.labels_, dtype=np.int64)


def _different(records: NDArray[np.float64], most: int) -> int:
    """Return the number of different records, at most `most`."""
    left = np.ones(len(records), dtype=bool)
    for different in range(most):
        if not left.any():
            return different
        left &= (records != records[left.argmax()]).any(axis=1)
    return most


def pseudonyms(
    secret: bytes,
    ids: Ids,
    copy: NDArray[np.int64],
    generation: int,
    bits: int = _PSEUDONYM_BITS,
) -> NDArray[np.int64]:
    """Return a pseudonym for each copy of each record, which tells nothing without the secret.

    Pseudonyms are keyed hashes below 2**bits, of which at most half are used. Of two equal ones
    that of the lower id, then of the lower copy, stays; the other is drawn again, with the number
    of the attempt, until all differ. Every pair of id and copy is there once.
    """
    if len(ids) > 2**bits // 2:
        raise ValueError(f"{len(ids)} names of {bits} bits")
    names = np.empty(len(ids), dtype=np.int64)
    waiting = np.lexsort((copy, ids))
    settled = names[:0]
    attempt = 0
    while len(waiting):
        drawn = np.empty(len(waiting), dtype=np.int64)
        for number in np.unique(copy[waiting]).tolist():
            mine = copy[waiting] == number
            hashed = numbers(secret, ids[waiting[mine]], "pseudonym", generation, number, attempt)
            drawn[mine] = (hashed >> np.uint64(64 - bits)).astype(np.int64)
        names[waiting] = drawn
        _, first = np.unique(drawn, return_index=True)
        stays = np.zeros(len(waiting), dtype=bool)
        stays[first] = True
        stays &= ~np.isin(drawn, settled)
        settled = np.concatenate([settled, drawn[stays]])
        waiting = waiting[~stays]
        attempt += 1
    return names
