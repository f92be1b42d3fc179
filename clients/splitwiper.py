"""The client of SplitWiper (Algorithms 1 and 2, the clients' lines)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from clients.base import Holding, SplitClient, action
from models.split import pool_to_quarters, seeded
from models.training import TrainingSettings, device, train_batch
from transport.message import Message
from unlearning.exactness import batches, derive_seed, order


class SplitWiperClient(SplitClient):
    """Trains its segment alone, freezes it, uploads once."""

    @action
    def pretrain(self, message: Message) -> Message:
        """Initialise, train for N epochs on the client's own data, freeze, send."""
        segment = self.fresh_segment()
        pretrain(segment, self.holding, self.training, self.client, self.num_labels)
        kept = self.keep_segment(segment)
        answer = self.upload_chunk(segment, "train", chunk=0)
        answer.fields["digest"] = kept
        return answer

    @action
    def forget(self, message: Message) -> Message:
        """Remove the forgotten samples and do again what `pretrain` does; nobody else is needed."""
        self.forget_samples(message)
        return self.pretrain(message)


def pretrain(
    segment: nn.Module,
    holding: Holding,
    training: TrainingSettings,
    client: int,
    num_labels: int,
) -> None:
    """Train a client segment alone, for N epochs, against a local head that is dropped afterwards.

    The paper does not say against what a client trains its first layers; we pool the smashed data
    and put one linear layer on it. The head has an output for every label of the data set, so that
    its size does not tell which were forgotten.

    Parameters
    ----------
    segment : nn.Module
        Trained in place; on a client without samples it stays as it is.
    holding : Holding
        What the client holds and has not forgotten.
    training : TrainingSettings
        Epochs, batch size, optimiser, seed.
    client : int
        Whose draws these are.
    num_labels : int
        Number of labels of the data set.
    """
    if not len(holding.ids):
        return
    with torch.no_grad():
        channels, height, width = segment(holding.x[:1].to(device())).shape[1:]
    pool, cells = pool_to_quarters(height, width)
    with seeded(derive_seed(training.seed, "local-head", client)):
        head = nn.Sequential(pool, nn.Flatten(), nn.Linear(channels * cells, num_labels))
    head.to(device())
    alone = nn.Sequential(OrderedDict(segment=segment, head=head))
    optimiser = training.optimiser(alone)
    for epoch in range(training.pretrain_epochs):
        visited = torch.from_numpy(
            order(holding.ids, derive_seed(training.seed, "pretrain-order", client, epoch))
        )
        for batch in batches(len(visited), training.batch_size):
            rows = visited[batch]
            train_batch(
                alone, optimiser, holding.x[rows].to(device()), holding.y[rows].to(device())
            )
