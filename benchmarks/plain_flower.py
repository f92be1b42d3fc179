"""SplitWiper's clients in plain Flower: what each computes and uploads, and nothing of ours around.

A ServerApp that asks all nodes at once and a ClientApp that trains its segment alone and answers
with its smashed data, as one would write them with Flower's messages for this purpose alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from torch import nn

from split_unlearning.models.pooling import pool_to_quarters
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.data.loading import load

# Of the environment, because Ray's workers import this file too.
DATA = os.environ["PLAIN_FLOWER_DATA"]
CLIENTS, EPOCHS, SAMPLES = map(int, os.environ["PLAIN_FLOWER_SIZES"].split())
BATCH, LEARNING_RATE = 32, 0.1


@lru_cache(maxsize=1)
def _data() -> Any:
    return load(f"npz:{DATA}")


client_app = ClientApp()


@client_app.query()
def greet(message: Message, context: Context) -> Message:
    """Say who this node is, and import what the first optimiser imports: as ours do by then."""
    import_module("torch._dynamo")
    return Message(RecordDict(), reply_to=message)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train the client segment alone, and answer with its smashed data."""
    torch.set_num_threads(1)
    data = _data()
    # Far apart, because the rows of a file may be sorted by label.
    step = len(data.y_train) // SAMPLES
    ids = np.arange(SAMPLES) * step + int(context.node_config["partition-id"]) % step
    x, y = data.train(ids)
    segment = build_segment("client", "cnn", data.input_shape, data.num_classes, seed=0)
    pool, cells = pool_to_quarters(*segment(x[:1]).shape[2:])
    channels = segment(x[:1]).shape[1]
    head = nn.Sequential(pool, nn.Flatten(), nn.Linear(channels * cells, data.num_classes))
    network = nn.Sequential(segment, head)
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(y)), BATCH):
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        smashed = segment(x).numpy()
    record = ArrayRecord({"smashed": Array(smashed), "labels": Array(y.numpy()), "ids": Array(ids)})
    return Message(RecordDict({"upload": record}), reply_to=message)


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask everybody who they are, then to train; print the seconds of the second question."""
    while len(nodes := list(grid.get_node_ids())) < CLIENTS:
        time.sleep(0.1)

    def ask(kind: str) -> float:
        started = time.perf_counter()
        asked = [Message(RecordDict(), node, kind) for node in nodes]
        replies = list(grid.send_and_receive(asked))
        assert len(replies) == CLIENTS
        assert not any(reply.has_error() for reply in replies), replies[0].error
        return time.perf_counter() - started

    ask("query")
    print(json.dumps({"round_seconds": ask("train")}), flush=True)


if __name__ == "__main__":
    # Under the name by which workers can import it.
    import plain_flower

    run_simulation(
        plain_flower.server_app,
        plain_flower.client_app,
        CLIENTS,
        backend_config={"client_resources": {"num_cpus": 1}},
    )
