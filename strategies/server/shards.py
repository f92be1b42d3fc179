"""The smashed data that clients uploaded, a shard each, and training on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.part import Parts, ServerPart
from split_unlearning.transport.message import Array
from split_unlearning.unlearning.activation_cache import ActivationCache, epoch_order
from split_unlearning.unlearning.exactness import batches
from split_unlearning.unlearning.state_folder import StateFolder


class Shards(ServerPart):
    """Keeps one shard a client, its smashed data with labels and ids, and trains on them."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._model, self._clock = parts[ServerModel], parts[Clock]

    def take_up(self, folder: StateFolder) -> None:
        """Go on with the shards that a folder keeps."""
        super().take_up(folder)
        self._cache = ActivationCache(folder)

    @property
    def cache_bytes(self) -> int:
        """The size of all shards, in bytes."""
        return self._cache.bytes

    def add(self, client: int, chunk: int, smashed: Array, labels: Array, ids: Array) -> None:
        """Take one chunk of a client's smashed data; chunk 0 replaces the client's shard.

        Smashed data are float32, shape (n, ...), labels and ids int64, shape (n,).

        Raises
        ------
        ValueError
            If shapes, lengths, labels or chunk numbers do not fit, or a value is not finite.
        """
        activations = self._model.checked(torch.tensor(smashed))
        if not activations.isfinite().all():
            raise ValueError(
                f"client {client} sent smashed data that is not finite: its pre-training diverged; "
                "a lower learning-rate may mend it"
            )
        checked = self._model.checked_labels(torch.tensor(labels), len(activations))
        self._cache.add(client, chunk, activations, checked, ids.astype(np.int64))

    def drop(self, client: int) -> None:
        """Remove a client's shard."""
        self._cache.drop(client)

    def train(self, epoch: int, clients: Sequence[int] | None = None) -> None:
        """Train the model for one epoch on some clients' shards, by default on all.

        The SplitWiper paper's Algorithm 1, lines 15-17. `epoch` counts from 0 in each stage.
        """
        with self._clock.running():
            samples = self._cache.samples(clients)
            stage = self._model.stage.name
            visited = epoch_order(samples.keys, self.training.seed, stage, epoch)
            in_batches = batches(len(visited), self.training.batch_size)
            pinned = self.parts.device.type == "cuda"
            for smashed, labels in samples.in_turn(visited, in_batches, pinned):
                self._model.train(smashed, labels)

    def received(self) -> dict[str, Array]:
        """Return all that the server received of training data, for attacks on it.

        Returns
        -------
        dict
            ``smashed``, float32, shape (n, ...); ``labels`` and ``clients``, int64, shape (n,):
            under which label each sample came, and from whom.
        """
        samples = self._cache.samples()
        return {
            "smashed": samples.smashed().numpy(),
            "labels": samples.labels.numpy(),
            "clients": samples.clients,
        }
