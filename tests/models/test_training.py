"""One step of training, against mathematics written by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from split_unlearning.models.training import TrainingSettings, train_batch


def towards(labels):
    return lambda logits: F.cross_entropy(logits, labels)


def test_the_optimiser_is_sgd_with_the_settings_over_every_segment():
    training = TrainingSettings(learning_rate=0.3, momentum=0.8, weight_decay=0.02)
    one, two = nn.Linear(3, 4), nn.Linear(4, 2)
    optimiser = training.optimiser(one, two)
    assert type(optimiser) is torch.optim.SGD
    (group,) = optimiser.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.8, 0.02)
    assert (group["nesterov"], group["dampening"], group["maximize"]) == (False, 0, False)
    expected = [*one.parameters(), *two.parameters()]
    assert [id(p) for p in group["params"]] == [id(p) for p in expected]
    assert not optimiser.state


def test_kernels_are_fixed_to_the_number_of_threads_and_to_deterministic_ones():
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(False)
        for wanted in (2, 1):
            TrainingSettings(threads=wanted).fix_kernels()
            assert torch.get_num_threads() == wanted
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)]
)
def test_a_step_on_a_linear_model_is_its_closed_form(momentum, weight_decay):
    rate, rng = 0.3, np.random.default_rng(4)
    weight, bias = rng.normal(size=(3, 5)), rng.normal(size=3)
    layer = nn.Linear(5, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    training = TrainingSettings(learning_rate=rate, momentum=momentum, weight_decay=weight_decay)
    optimiser = training.optimiser(layer)

    velocity = [np.zeros_like(weight), np.zeros_like(bias)]
    for step in range(4):
        samples = 6 + step
        x, y = rng.normal(size=(samples, 5)), rng.integers(0, 3, samples)
        # The gradient of mean cross entropy at the logits, by the chain rule to all that is left.
        at_logits = (softmax(x @ weight.T + bias) - np.eye(3)[y]) / samples
        at_x = at_logits @ weight
        gradients = [at_logits.T @ x, at_logits.sum(axis=0)]
        for index, (part, gradient) in enumerate(zip((weight, bias), gradients, strict=True)):
            velocity[index] = momentum * velocity[index] + gradient + weight_decay * part
            part -= rate * velocity[index]

        tensor = torch.from_numpy(x).requires_grad_()
        train_batch(layer, optimiser, tensor, towards(torch.from_numpy(y)))
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=0, atol=1e-13)
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias, rtol=0, atol=1e-13)
        np.testing.assert_allclose(tensor.grad.numpy(), at_x, rtol=0, atol=1e-13)


def test_gradients_of_an_earlier_batch_have_no_say_in_a_step():
    torch.manual_seed(0)
    x, y = torch.randn(8, 5), torch.randint(0, 3, (8,))
    results = []
    for left_over in (False, True):
        torch.manual_seed(1)
        layer = nn.Linear(5, 3)
        optimiser = TrainingSettings().optimiser(layer)
        if left_over:
            layer(100 * x).sum().backward()
        train_batch(layer, optimiser, x, towards(y))
        results.append(layer.weight.detach().clone())
    assert torch.equal(*results)


def test_an_input_that_requires_no_gradient_gets_none():
    layer = nn.Linear(5, 3)
    before = layer.weight.detach().clone()
    x = torch.ones(2, 5)
    train_batch(layer, TrainingSettings().optimiser(layer), x, towards(torch.tensor([0, 1])))
    assert x.grad is None
    assert not torch.equal(layer.weight, before)
