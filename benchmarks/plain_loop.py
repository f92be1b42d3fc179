"""The mathematics of split learning with one client, in one plain PyTorch loop.

    python benchmarks/plain_loop.py DATA.npz MODEL BATCH_SIZE EPOCHS KIND

Of three kinds: the ``whole`` network trained; the same with each step's ``gradients`` written to a
file; and the segment ``behind`` the cut trained on smashed data that a segment before it has made
once.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import nn

from split_unlearning.models.split import MODELS
from split_unlearning.simulations.data.loading import load


def main(path: str, model: str, batch_size: int, epochs: int, kind: str) -> dict[str, float]:
    """Train and return the seconds a batch takes, one thread."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    data = load(f"npz:{path}")
    x, y = data.train(np.arange(len(data.y_train)))
    split = MODELS.get(model)(data.input_shape, data.num_classes)
    network: nn.Module = split.whole()
    if kind == "behind":
        network = split.segment("server")
        with torch.no_grad():
            x = torch.cat([split.segment("client")(part) for part in torch.split(x, batch_size)])
    network.train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    batches, seconds = 0, 0.0
    with tempfile.TemporaryFile() as gradients:
        for _ in range(epochs):
            visited = torch.randperm(len(y))
            started = time.perf_counter()
            for rows in torch.split(visited, batch_size):
                optimiser.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
                if kind == "gradients":
                    for one in network.parameters():
                        assert one.grad is not None
                        gradients.write(one.grad.numpy().data)
                optimiser.step()
                batches += 1
            seconds += time.perf_counter() - started
    return {"batches": batches, "batch_seconds": seconds / batches}


if __name__ == "__main__":
    path, model, batch_size, epochs, kind = sys.argv[1:]
    print(json.dumps(main(path, model, int(batch_size), int(epochs), kind)))
