"""The server's part of label consensus: it relays what it cannot open (Algorithm 3)."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from split_unlearning.foundations.errors import refuse
from split_unlearning.strategies.script import Question, Reply
from split_unlearning.transport.message import Array, Message, Scalar


def agree_on_labels(clients: Sequence[int], rounds: int) -> Generator[Question, list[Reply], int]:
    """Have clients share a secret, and agree on all labels that any of them holds.

    Use as ``yield from agree_on_labels(...)``. The pool goes round in the order of `clients`, at
    most `rounds` times. Clients that have agreed before, as in training again to verify that, go by
    that.

    Returns
    -------
    int
        E, the number of masked labels, which is all that the server learns.

    Raises
    ------
    UserError
        If the clients have not agreed after so many rounds.
    """
    replies = yield Question({client: Message("offer-key") for client in clients})
    if all("masked-labels" in reply.message.fields for reply in replies):
        return _number_of_labels(replies)
    yield from _share_secret(clients, [reply.message.tensors["key"] for reply in replies])
    pool = yield from _go_round(clients, rounds)
    fields: dict[str, Scalar] = {"places": len(clients)}
    replies = yield Question({one: Message("agree", fields, {"pool": pool}) for one in clients})
    return _number_of_labels(replies)


def _share_secret(
    clients: Sequence[int], keys: Sequence[Array]
) -> Generator[Question, list[Reply], None]:
    """Have the first client seal a secret for each other one."""
    first, others = clients[0], clients[1:]
    offered = np.array(keys[1:], dtype=np.uint8).reshape(len(others), -1)
    (reply,) = yield Question({first: Message("share-secret", tensors={"keys": offered})})
    sealed = reply.message.tensors["sealed"]
    yield Question(
        {
            client: Message("take-secret", tensors={"key": keys[0], "sealed": sealed[place]})
            for place, client in enumerate(others)
        }
    )


def _go_round(clients: Sequence[int], rounds: int) -> Generator[Question, list[Reply], Array]:
    """Send the sealed pool from client to client until all are done."""
    pool: Array = np.empty(0, dtype=np.uint8)
    for number in range(rounds):
        for place, client in enumerate(clients):
            fields: dict[str, Scalar] = {"round": number, "place": place, "places": len(clients)}
            (reply,) = yield Question({client: Message("add-to-pool", fields, {"pool": pool})})
            pool = reply.message.tensors["pool"]
        if reply.message.fields["all-done"]:
            return pool
    allowed = "more rounds, or larger consensus-add and consensus-finish: the clients do not agree"
    raise refuse("consensus-rounds", rounds, allowed)


def _number_of_labels(replies: Sequence[Reply]) -> int:
    numbers = {reply.message.integer("masked-labels") for reply in replies}
    if len(numbers) != 1:
        raise ValueError(f"the clients tell different numbers of masked labels: {sorted(numbers)}")
    return numbers.pop()
