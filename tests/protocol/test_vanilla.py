"""Vanilla split learning is the unsplit network, cut: the same bits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.loading import load
from split_unlearning.simulations.preparation import prepare
from split_unlearning.unlearning.exactness import order
from split_unlearning.unlearning.stages import learning
from tests.local_grid import LocalRun, dealt

SEED = 5


@pytest.fixture(scope="module")
def large_digits(tmp_path_factory):
    """Digits at twice the size, for a model with batch norm and dropout that needs 16x16."""
    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)[:400]
    labels = digits.target[:400]
    path = tmp_path_factory.mktemp("data") / "digits16.npz"
    np.savez(
        path,
        x_train=images[:300],
        y_train=labels[:300],
        x_test=images[300:],
        y_test=labels[300:],
        class_names=np.array([str(digit) for digit in range(10)]),
    )
    return f"npz:{path}"


def unsplit(
    model,
    dataset,
    epochs,
    batch_size,
    owner=0,
    parts=("client", "server"),
    tokens=None,
    **optimiser,
):
    """Train the whole network in plain PyTorch on the batches that the protocol visits.

    Returns the state of each part, after training them as one network.
    """
    data = load(dataset, tokens=tokens)
    ids = np.arange(len(data.y_train))
    x, y = data.train(ids)
    segments = []
    for part in parts:
        whose = ("server-segment",) if part in ("server", "trunk") else (f"{part}-segment", owner)
        shape = (data.input_shape, data.num_classes)
        segments.append(build_segment(part, model, *shape, derive_seed(SEED, *whose)))
    network = nn.Sequential(*segments).train()
    steps = torch.optim.SGD(network.parameters(), **optimiser)
    step = 0
    for epoch in range(epochs):
        visited = torch.from_numpy(order(ids, derive_seed(SEED, "order", "train", 0, epoch)))
        chunks = list(torch.split(visited, batch_size))
        if len(chunks) > 1 and len(chunks[-1]) == 1:
            chunks[-2:] = [torch.cat(chunks[-2:])]
        for rows in chunks:
            steps.zero_grad()
            with seeded(derive_seed(SEED, "server-step", "train", step)):
                loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
            loss.backward()
            steps.step()
            step += 1
    return [segment.state_dict() for segment in segments]


def same_bits(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("client_sync", ["none", "handoff"])
@pytest.mark.parametrize(
    ("momentum", "weight_decay", "batch_size"), [(0.0, 0.0, 32), (0.9, 0.01, 131)]
)
def test_one_client_equals_the_unsplit_network(client_sync, momentum, weight_decay, batch_size):
    run = LocalRun(
        1,
        strategy="vanilla",
        forget="",
        client_sync=client_sync,
        server_epochs=3,
        learning_rate=0.05,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        seed=SEED,
    )
    # The segment that is handed on starts from weights that are nobody's own.
    owner = 0 if client_sync == "none" else "shared"
    settings = {"lr": 0.05, "momentum": momentum, "weight_decay": weight_decay}
    client, server = unsplit("cnn", "digits", 3, batch_size, owner, **settings)
    assert same_bits(run.client_state(0), client)
    assert same_bits(run.server_state, server)


def test_one_client_equals_the_unsplit_network_with_batch_norm_and_dropout(large_digits):
    run = LocalRun(
        1,
        strategy="vanilla",
        model="vgg",
        dataset=large_digits,
        forget="",
        server_epochs=2,
        batch_size=64,
        learning_rate=0.05,
        momentum=0.9,
        seed=SEED,
    )
    client, server = unsplit("vgg", large_digits, 2, 64, lr=0.05, momentum=0.9, weight_decay=0.0)
    assert same_bits(run.client_state(0), client)
    assert same_bits(run.server_state, server)


def test_handoff_equals_one_network_that_visits_the_clients_in_turn():
    settings = {"server_epochs": 2, "seed": SEED, "momentum": 0.9, "learning_rate": 0.05}
    run = LocalRun(3, strategy="vanilla", forget="", client_sync="handoff", **settings)
    data, plan = run.prepared.dataset, run.prepared.plan
    parts = ("cnn", data.input_shape, data.num_classes)
    client = build_segment("client", *parts, derive_seed(SEED, "client-segment", "shared"))
    server = build_segment("server", *parts, derive_seed(SEED, "server-segment"))
    network = nn.Sequential(client, server)
    steps = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(2):
        for turn in run.strategy.turns(learning(2), epoch, [0, 1, 2]):
            ids = plan.train[turn]
            visited = ids[order(ids, derive_seed(SEED, "order", "train", turn, epoch))]
            for start in range(0, len(visited), 32):
                x, y = data.train(visited[start : start + 32])
                assert len(y) > 1
                steps.zero_grad()
                nn.functional.cross_entropy(network(x), y).backward()
                steps.step()
    for each in range(3):
        assert same_bits(run.client_state(each), client.state_dict())
    assert same_bits(run.server_state, server.state_dict())


def test_turns_are_a_permutation_that_changes_from_epoch_to_epoch():
    run = LocalRun(4, strategy="vanilla", forget="", server_epochs=1)
    everybody = range(4)
    orders = [tuple(run.strategy.turns(learning(20), epoch, everybody)) for epoch in range(20)]
    assert all(sorted(one) == [0, 1, 2, 3] for one in orders)
    assert len(set(orders)) > 5
    some = [tuple(run.strategy.turns(learning(20), epoch, [3, 1])) for epoch in range(20)]
    assert some == [tuple(client for client in one if client in (1, 3)) for one in orders]


def test_learns_and_forgets():
    run = LocalRun(5, strategy="vanilla", server_epochs=12, forget="class:2")
    before, after = (phase["accuracy"] for phase in run.phases)
    assert before["unlearned"] > 0.9
    assert after["unlearned"] == 0
    assert before["retained"] > 0.9
    assert after["retained"] > 0.9


def test_every_client_takes_part_in_forgetting():
    run = LocalRun(3, strategy="vanilla", server_epochs=1, forget="class:2")
    assert {client for client, _ in run.instructions("unlearn")} == {0, 1, 2}


def test_forgetting_equals_training_without_the_forgotten_samples():
    run = LocalRun(3, strategy="vanilla", server_epochs=2, forget="samples:0.5@class:3;client:1")
    without = prepare(run.prepared.config, 3)
    gone = {
        client: np.concatenate(
            [one.samples.get(client, np.empty(0, np.int64)) for one in without.forgettings]
        )
        for client in range(3)
    }
    plan = Plan(
        tuple(np.setdiff1d(ids, gone[client]) for client, ids in enumerate(without.plan.train)),
        without.plan.test,
    )
    with dealt(without.dataset, plan):
        reference = LocalRun(3, strategy="vanilla", server_epochs=2, forget="")
    assert run.digests == reference.digests
