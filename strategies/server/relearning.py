"""How quickly a server segment learns again what it forgot (relearn time)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.seeding import seeded
from split_unlearning.models.training import TrainingSettings, finite
from split_unlearning.strategies.server.precision import Precision, forward
from split_unlearning.unlearning.exactness import batches, order
from split_unlearning.unlearning.objectives import CrossEntropy


def epochs_to_relearn(
    segment: nn.Sequential,
    precision: Precision,
    smashed: torch.Tensor,
    labels: torch.Tensor,
    wanted: float,
    most: int,
    training: TrainingSettings,
) -> int | None:
    """Train a segment on forgotten samples alone; return after how many epochs it has them back.

    The segment is a copy: it is trained. `wanted` is the share of the samples that it is to get
    right.

    The forgotten samples are `smashed`, float32, shape (n, ...), and `labels`, int64, shape (n,),
    on the device.

    Returns
    -------
    int or None
        None if it does not in `most` epochs.
    """
    optimiser, objective = training.optimiser(segment), CrossEntropy()
    for epoch in range(most + 1):
        segment.eval()
        with torch.no_grad():
            parts = [forward(segment, part, precision).argmax(1) for part in smashed.split(512)]
        if float((torch.cat(parts) == labels).double().mean()) >= wanted:
            return epoch
        segment.train()
        seed = derive_seed(training.seed, "relearn", epoch)
        visited = torch.from_numpy(order(np.arange(len(labels)), seed)).to(labels.device)
        with seeded(seed):
            for batch in batches(len(visited), training.batch_size):
                rows = visited[batch]
                optimiser.zero_grad(set_to_none=True)
                logits = forward(segment, smashed[rows], precision)
                finite(objective.loss(logits, {"labels": labels[rows]})).backward()
                optimiser.step()
    return None
