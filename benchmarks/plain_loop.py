"""The mathematics of vanilla split learning with one client, in one plain PyTorch loop."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import nn

from models.split import MODELS
from simulations.data.sources import load


def main(path: str, model: str, batch_size: int, epochs: int) -> dict[str, float]:
    """Train the unsplit network and return the seconds a batch takes, one thread."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    data = load(f"npz:{path}")
    x, y = data.train(np.arange(len(data.y_train)))
    network = MODELS.get(model)(data.input_shape, data.num_classes).whole().train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    batches, seconds = 0, 0.0
    for _ in range(epochs):
        visited = torch.randperm(len(y))
        started = time.perf_counter()
        for rows in torch.split(visited, batch_size):
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
            batches += 1
        seconds += time.perf_counter() - started
    return {"batches": batches, "batch_seconds": seconds / batches}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
