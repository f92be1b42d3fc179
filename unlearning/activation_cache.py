"""The server's cache of smashed data: one shard a client, replaced or dropped whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch

from unlearning.exactness import Ids, derive_seed, order

# Sample ids of one client stay below this, so that a client and an id make one number.
_IDS_PER_CLIENT = 1 << 40


@dataclass
class Shard:
    """What one client uploaded, chunk by chunk."""

    smashed: list[torch.Tensor] = field(default_factory=list)
    labels: list[torch.Tensor] = field(default_factory=list)
    ids: list[Ids] = field(default_factory=list)


class ActivationCache:
    """Smashed data and labels of every client, kept so that nobody has to send them again.

    SISA's shards are the clients (SplitWiper, Sec. 4.2.1), so a client's shard is the unit that a
    request replaces.
    """

    def __init__(self) -> None:
        self._shards: dict[int, Shard] = {}

    def add(
        self, client: int, chunk: int, smashed: torch.Tensor, labels: torch.Tensor, ids: Ids
    ) -> None:
        """Take one chunk of a client's upload; its chunk 0 replaces whatever the client had.

        Parameters
        ----------
        client : int
            Who uploads.
        chunk : int
            Number of the chunk, from 0, in order.
        smashed : tensor of float32, shape (n, ...)
            Activations at the cut.
        labels : tensor of int64, shape (n,)
            Their labels.
        ids : array of int64, shape (n,)
            Their sample ids.

        Raises
        ------
        ValueError
            If a chunk is missing before this one, or the lengths differ.
        """
        shard = Shard() if chunk == 0 else self._shards.get(client, Shard())
        if chunk != len(shard.ids):
            raise ValueError(f"client {client} sent chunk {chunk} after {len(shard.ids)} chunks")
        if not len(smashed) == len(labels) == len(ids):
            raise ValueError(
                f"client {client} sent {len(smashed)} activations, {len(labels)} labels and "
                f"{len(ids)} ids in one chunk"
            )
        shard.smashed.append(smashed)
        shard.labels.append(labels)
        shard.ids.append(ids)
        self._shards[client] = shard

    def drop(self, client: int) -> None:
        """Remove a client's shard, if it has one."""
        self._shards.pop(client, None)

    def clients(self) -> list[int]:
        """Return whose shards hold at least one sample, in order."""
        return sorted(c for c, shard in self._shards.items() if any(map(len, shard.ids)))

    @property
    def bytes(self) -> int:
        """Size of all smashed data and labels, in bytes."""
        return sum(
            tensor.nbytes
            for shard in self._shards.values()
            for tensor in [*shard.smashed, *shard.labels]
        )

    def smashed(self, client: int) -> torch.Tensor:
        """Return one client's smashed data, shape (n, ...)."""
        return torch.cat(self._shards[client].smashed)

    def samples(
        self, clients: Collection[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, Ids]:
        """Return all smashed data, labels and keys, client by client.

        Parameters
        ----------
        clients : collection of int, optional
            Of whom; default everybody. Who uploaded nothing adds nothing.

        Returns
        -------
        smashed : tensor of float32, shape (n, ...)
        labels : tensor of int64, shape (n,)
        keys : array of int64, shape (n,)
            One number for a client and a sample id, for `epoch_order`.
        """
        if not self.clients():
            raise ValueError("the activation cache is empty: there is nothing to train on")
        wanted = self.clients() if clients is None else clients
        shards = [(client, self._shards[client]) for client in self.clients() if client in wanted]
        if not shards:
            nothing = self._shards[self.clients()[0]]
            return nothing.smashed[0][:0], nothing.labels[0][:0], nothing.ids[0][:0]
        smashed = torch.cat([chunk for _, shard in shards for chunk in shard.smashed])
        labels = torch.cat([chunk for _, shard in shards for chunk in shard.labels])
        keys = np.concatenate(
            [client * _IDS_PER_CLIENT + chunk for client, shard in shards for chunk in shard.ids]
        )
        return smashed, labels, keys


def epoch_order(keys: Ids, seed: int, stage: str, epoch: int) -> torch.Tensor:
    """Return the order in which the server visits cached samples in one epoch of a stage.

    Returns
    -------
    tensor of int64, shape (n,)
        Positions; the place of two samples never depends on a third.
    """
    return torch.from_numpy(order(keys, derive_seed(seed, "server-order", stage, epoch)))
