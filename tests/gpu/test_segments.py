"""The server segment on a GPU: the bits of two runs, and the CPU's numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.models.devices import device, moved
from split_unlearning.models.split import smashed_shape
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.segment import LocalSegment
from split_unlearning.strategies.server.setting import SegmentSetting
from split_unlearning.strategies.server.shards import Shards

TRAINING = TrainingSettings(seed=5, batch_size=16, learning_rate=0.02, momentum=0.9)
MODELS = {
    "cnn": (1, 8, 8),
    "vgg": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "bert": (16,),
}


def trained(model, on_gpu, precision="float32", epochs=2):
    """Train a server segment on a cache of 80 random samples, and on batches over its link."""
    shape = MODELS[model]
    server = LocalSegment(
        SegmentSetting(model, shape, 10, TRAINING, on_gpu=on_gpu, precision=precision)
    )
    rng = np.random.default_rng(1)
    smashed = rng.normal(size=(80, *smashed_shape(model, shape, 10))).astype(np.float32)
    server.call(Shards.add, 0, 0, smashed, rng.integers(0, 10, 80), np.arange(80))
    for epoch in range(epochs):
        server.call(Shards.train, epoch)
    return server


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_two_trainings_give_the_same_bits(gpu, model, precision):
    if model == "bert":
        pytest.importorskip("transformers")
    one, other = (trained(model, True, precision) for _ in range(2))
    assert one.call(ServerModel.device_name) == gpu
    assert one.call(ServerModel.digest) == other.call(ServerModel.digest)
    assert one.call(Clock.take) > 0


@pytest.mark.parametrize("model", MODELS)
def test_in_float32_it_computes_what_a_cpu_does(model):
    if model == "vgg":
        pytest.skip("its dropout draws other numbers on a GPU than on a CPU")
    if model == "bert":
        pytest.importorskip("transformers")
    shape = smashed_shape(model, MODELS[model], 10)
    rng = np.random.default_rng(1)
    batch = {
        "smashed": torch.from_numpy(rng.normal(size=(32, *shape)).astype(np.float32)),
        "labels": torch.from_numpy(rng.integers(0, 10, 32)),
    }
    cuts = []
    for on_gpu in (True, False):
        server = LocalSegment(SegmentSetting(model, MODELS[model], 10, TRAINING, on_gpu=on_gpu))
        cuts.append(server.call(ServerModel.batch, 0, batch)["gradient"].cpu())
    # Many steps would say nothing: a training of few samples forgets its last bits quickly.
    assert (cuts[0] - cuts[1]).norm() <= 1e-3 * cuts[1].norm()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 7), max_size=4), st.sampled_from(["float32", "int64", "bool"]))
def test_what_is_moved_arrives_as_it_was(shape, dtype):
    tensor = (torch.randn(shape) * 5).to(getattr(torch, dtype))
    there = moved(tensor, device())
    assert there.device.type == "cuda"
    assert there.dtype == tensor.dtype
    assert moved(there, device()) is there
    assert torch.equal(there.cpu(), tensor)
    assert moved(tensor, torch.device("cpu")) is tensor
