"""SplitFed against an independent loop that averages."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.data.loading import load
from split_unlearning.unlearning.exactness import batches, order
from split_unlearning.unlearning.stages import learning
from tests.local_grid import LocalRun
from tests.protocol.test_vanilla import SEED, same_bits

SETTINGS = {"server_epochs": 2, "learning_rate": 0.05, "momentum": 0.9, "seed": SEED, "forget": ""}


def fresh():
    data = load("digits")
    parts = ("cnn", data.input_shape, data.num_classes)
    client = build_segment("client", *parts, derive_seed(SEED, "client-segment", "shared"))
    return client, build_segment("server", *parts, derive_seed(SEED, "server-segment"))


def train(client, server, ids, number, epoch, server_steps=None):
    """Train a client and a server segment together for one epoch, with fresh optimisers."""
    x, y = load("digits").train(ids)
    ends = [torch.optim.SGD(client.parameters(), lr=0.05, momentum=0.9)]
    ends.append(server_steps or torch.optim.SGD(server.parameters(), lr=0.05, momentum=0.9))
    visited = torch.from_numpy(order(ids, derive_seed(SEED, "order", "train", number, epoch)))
    for batch in batches(len(visited), 32):
        for steps in ends:
            steps.zero_grad()
        loss = nn.functional.cross_entropy(server(client(x[visited[batch]])), y[visited[batch]])
        loss.backward()
        for steps in ends:
            steps.step()


def mean(segments, sizes):
    """Average in double precision, apart from what the product does."""
    states = [one.state_dict() for one in segments]
    return {
        name: sum(
            state[name].double() * size / sum(sizes)
            for state, size in zip(states, sizes, strict=True)
        ).float()
        for name in states[0]
    }


def close(left, right):
    """Equal but for rounding: averages that differ in the last bit flip a ReLU here and there.

    Averages that are off by one in a million move a weight by 3e-5, and all weights of a layer
    together by 1e-4 of what they learned; on one processor they were off by 2e-3.
    """
    assert left.keys() == right.keys()
    for name in left:
        assert (left[name] - right[name]).norm() <= 5e-3 * right[name].norm(), name


@pytest.mark.parametrize("version", [1, 2])
def test_one_client_equals_the_unsplit_network(version):
    run = LocalRun(1, strategy="splitfed", splitfed_version=version, **SETTINGS)
    client, server = fresh()
    # The one server segment of version 2 keeps its optimiser from round to round.
    kept = torch.optim.SGD(server.parameters(), lr=0.05, momentum=0.9) if version == 2 else None
    for epoch in range(2):
        train(client, server, np.arange(1442), 0, epoch, kept)
    assert same_bits(run.client_state(0), client.state_dict())
    assert same_bits(run.server_state, server.state_dict())


@pytest.mark.parametrize("distribution", ["iid", "homogeneous-labels"])
def test_version_1_equals_a_loop_that_averages_both_sides(distribution):
    run = LocalRun(3, strategy="splitfed", distribution=distribution, **SETTINGS)
    held = run.prepared.plan.train
    client, server = fresh()
    for epoch in range(2):
        pairs = [(copy.deepcopy(client), copy.deepcopy(server)) for _ in held]
        for number, (pair, ids) in enumerate(zip(pairs, held, strict=True)):
            train(*pair, ids, number, epoch)
        sizes = [len(ids) for ids in held]
        client.load_state_dict(mean([pair[0] for pair in pairs], sizes))
        server.load_state_dict(mean([pair[1] for pair in pairs], sizes))
    close(run.server_state, server.state_dict())
    for number in range(3):
        close(run.client_state(number), client.state_dict())


def test_version_2_equals_a_loop_with_one_server_segment():
    run = LocalRun(3, strategy="splitfed", splitfed_version=2, distribution="iid", **SETTINGS)
    held = run.prepared.plan.train
    client, server = fresh()
    kept = torch.optim.SGD(server.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(2):
        clients = [copy.deepcopy(client) for _ in held]
        for number in run.strategy.turns(learning(2), epoch, range(3)):
            train(clients[number], server, held[number], number, epoch, kept)
        client.load_state_dict(mean(clients, [len(ids) for ids in held]))
    close(run.server_state, server.state_dict())
    close(run.client_state(1), client.state_dict())


def test_the_number_of_clients_in_flight_changes_nothing():
    alone, together = (
        LocalRun(4, in_flight, strategy="splitfed", **SETTINGS) for in_flight in (1, 4)
    )
    assert alone.digests == together.digests


@pytest.mark.parametrize("version", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_learns_and_forgets_even_a_whole_client(version):
    run = LocalRun(
        3,
        strategy="splitfed",
        splitfed_version=version,
        distribution="iid",
        server_epochs=16,
        forget="class:2;client:1",
    )
    assert len(run.phases) == 3
    assert min(phase["accuracy"]["retained"] for phase in run.phases) > 0.85
    # One segment for all, and all have it.
    for phase in run.phases:
        assert len(set(phase["digests"]["clients"].values())) == 1
