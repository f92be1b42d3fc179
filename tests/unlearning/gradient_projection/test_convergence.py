"""After the projection, descent on what is retained converges as non-convex descent does."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call

from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.recorder import StepRecorder
from split_unlearning.unlearning.gradient_projection.sequential import (
    SequentialProjection,
    coefficients,
)

RATE, BATCH, EPOCHS = 0.1, 50, 6


def loss_of(network, x, y):
    return nn.functional.cross_entropy(network(x), y)


def projected():
    """Learn 600 digits, project the 2s among them out; return the network and what is retained."""
    digits = load_digits()
    x = torch.tensor(digits.images[:600].reshape(600, -1) / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[:600])
    forgotten = y == 2
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    cache = GradientCache({}, "digits")
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE)
    recorder = StepRecorder(cache, network, optimiser, 0)
    batches = [
        rows
        for epoch in range(EPOCHS)
        for rows in torch.randperm(600, generator=torch.Generator().manual_seed(epoch)).split(BATCH)
    ]
    for rows in batches:
        optimiser.zero_grad()
        loss_of(network, x[rows], y[rows]).backward()
        recorder.announce(0, BATCH, rows.numpy())
        optimiser.step()

    gone = set(np.flatnonzero(forgotten.numpy()).tolist())
    counts = {step.number: len(gone & set(step.ids.tolist())) for step in cache.steps}
    empty = {name: torch.zeros_like(one) for name, one in network.named_parameters()}
    moved = dict(enumerate(coefficients([RATE] * len(batches), 0.0)))
    projection = SequentialProjection(cache, counts, moved, empty)
    for step in cache.steps:
        if projection.is_mixed(step):
            rows = batches[step.number][forgotten[batches[step.number]]]
            held = {
                name: one.clone().requires_grad_()
                for name, one in projection.weights(step.number).items()
            }
            outputs = functional_call(network, held, (x[rows],))
            loss = nn.functional.cross_entropy(outputs, y[rows]) * len(rows) / BATCH
            shares = torch.autograd.grad(loss, list(held.values()))
            projection.take(step.number, dict(zip(held, shares, strict=True)))
    before = loss_of(network, x[forgotten], y[forgotten]).item()
    with torch.no_grad():
        for name, one in projection.finish().items():
            network.get_parameter(name).add_(one)
    after = loss_of(network, x[forgotten], y[forgotten]).item()
    return network, x[~forgotten], y[~forgotten], before, after


def descended(network, x, y, steps):
    """Descend on everything at once; yield ||∇L||² of each step, and the loss around it."""
    after = loss_of(network, x, y).item()
    for _ in range(steps):
        network.zero_grad()
        loss_of(network, x, y).backward()
        gradients = [one.grad for one in network.parameters()]
        squared = sum(one.square().sum().item() for one in gradients)
        with torch.no_grad():
            for one, gradient in zip(network.parameters(), gradients, strict=True):
                one -= RATE * gradient
            before, after = after, loss_of(network, x, y).item()
        yield squared, before, after


def test_the_mean_squared_gradient_falls_as_one_over_the_steps():
    """T · mean ||∇L||² <= 2 (L(start) - L(end)) / η, for every T; the bound of O(1/T) rates."""
    network, x, y, before, after = projected()
    # Where it starts from is the result of a projection, which did something.
    assert after > before + 1
    start = loss_of(network, x, y).item()
    total, bounds = 0.0, 0
    for steps, (squared, _, end) in enumerate(descended(network, x, y, 400), start=1):
        total += squared
        if steps >= 10:
            bounds += 1
            assert total <= 2 * (start - end) / RATE
    assert bounds == 391
