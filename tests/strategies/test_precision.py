"""A server segment in bfloat16, against plain PyTorch with the same autocast, bit for bit."""

import sys
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.network import Network
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import MODELS, build_segment
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.precision import (
    check_computes,
    check_device,
    forward,
    laid_out,
)
from split_unlearning.strategies.server.scoring import Scoring
from split_unlearning.strategies.server.segment import LocalSegment
from split_unlearning.strategies.server.setting import SegmentSetting
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.transport.link import Caller
from split_unlearning.unlearning.exactness import digest, order
from split_unlearning.unlearning.methods import METHODS

TRAINING = TrainingSettings(
    seed=5, batch_size=8, learning_rate=0.05, momentum=0.9, weight_decay=1e-3
)
CALLER = Caller(client=0, phase="learn")
# With batch norm and dropout; 8 channels of 8x8 cross its cut.
VGG = ("vgg", (1, 16, 16), 10)
CROSSES = (8, 8, 8)


@pytest.fixture(autouse=True)
def kernels():
    """The plain loops compute with the kernels of a server segment."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    TRAINING.fix_kernels()
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])


@pytest.fixture
def toy(monkeypatch):
    """Return a function that makes an architecture nameable by a dotted path."""
    module = ModuleType("toy_models")
    monkeypatch.setitem(sys.modules, "toy_models", module)

    def name(architecture):
        module.toy = architecture
        return "toy_models:toy"

    return name


def segment(precision="bfloat16", model=VGG, part="server"):
    return LocalSegment(SegmentSetting(*model, TRAINING, part=part, precision=precision))


def plain(part="server", model=VGG):
    """Return the same weights as a module of nobody's, and its optimiser."""
    network = build_segment(part, *model, derive_seed(TRAINING.seed, "server-segment"))
    network = network.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    return network, optimiser


def passed(network, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return network(x.to(memory_format=torch.channels_last)).float()


def dropping(step, *name):
    """Draw what dropout draws in a step of a server segment's."""
    return seeded(derive_seed(TRAINING.seed, "server-step", *(name or ("train",)), step))


def upload(samples, salt=0):
    rng = np.random.default_rng([samples, salt])
    smashed = rng.normal(size=(samples, *CROSSES)).astype(np.float32)
    return smashed, rng.integers(0, 10, samples), np.arange(samples, dtype=np.int64) * 3 + salt


def batch(samples, salt=0):
    smashed, labels, _ = upload(samples, salt)
    return {"smashed": torch.from_numpy(smashed), "labels": torch.from_numpy(labels)}


def plain_float32(tensor):
    return tensor.dtype == torch.float32 and tensor.is_contiguous()


def test_training_on_the_cache_is_a_plain_loop_with_autocast():
    server = segment()
    smashed, labels, ids = upload(33)
    server.call(Shards.add, 0, 0, smashed, labels, ids)
    for epoch in range(2):
        server.call(Shards.train, epoch)

    network, optimiser = plain()
    step = 0
    for epoch in range(2):
        visited = order(ids, derive_seed(TRAINING.seed, "server-order", "train", epoch))
        # The last sample joins the batch before.
        for rows in (visited[:8], visited[8:16], visited[16:24], visited[24:]):
            optimiser.zero_grad()
            x, y = (torch.from_numpy(part[rows]) for part in (smashed, labels))
            with dropping(step):
                F.cross_entropy(passed(network, x), y).backward()
            optimiser.step()
            step += 1
    assert server.call(ServerModel.digest) == digest(network.state_dict())


def test_a_step_over_the_link_returns_the_gradient_at_the_cut_in_float32():
    server = segment()
    network, optimiser = plain()
    for step in range(3):
        tensors = batch(8, salt=step)
        reply, _ = server.call(ServerLink.answer, CALLER, dict(tensors), {})
        x = tensors["smashed"].clone().requires_grad_()
        optimiser.zero_grad()
        with dropping(step):
            F.cross_entropy(passed(network, x), tensors["labels"]).backward()
        optimiser.step()
        assert plain_float32(reply["gradient"])
        assert torch.equal(reply["gradient"], x.grad)
    assert server.call(ServerModel.digest) == digest(network.state_dict())


def test_the_gradient_is_close_to_that_of_float32_and_not_the_same():
    # Without dropout, which draws other numbers for other types.
    exact, rounded = (
        segment(precision, ("cnn", (1, 16, 16), 10)).call(ServerLink.answer, CALLER, batch(9), {})[
            0
        ]["gradient"]
        for precision in ("float32", "bfloat16")
    )
    error = float((rounded - exact).norm() / exact.norm())
    # 8 significant bits a number; a maximum that is nearly one of two may become the other.
    assert 2**-10 < error < 2**-2


def test_convolutions_compute_in_bfloat16_and_channels_last_and_losses_in_float32():
    network, _ = plain()
    seen = {}

    def look(name):
        def hook(module, taken, given):
            last = given.is_contiguous(memory_format=torch.channels_last)
            seen[name] = given.dtype, given.ndim != 4 or last

        return hook

    layers = {name: one for name, one in network.named_modules() if not list(one.children())}
    assert any(isinstance(one, nn.Conv2d) for one in layers.values())
    for name, one in layers.items():
        one.register_forward_hook(look(name))
    logits = forward(laid_out(network, "bfloat16"), batch(8)["smashed"], "bfloat16")
    for name, one in layers.items():
        if isinstance(one, nn.Conv2d | nn.Linear):
            assert seen[name] == (torch.bfloat16, True)
    assert plain_float32(logits)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


def test_a_trunk_equals_autograd_with_autocast(toy):
    # Cut before the pooling, so that what leaves the trunk are images, channels last inside.
    def wide(input_shape, num_labels):
        network = MODELS.get("vgg")(input_shape, num_labels)
        return Network(network.layers, network.cut, head="hidden")

    model = (toy(wide), *VGG[1:])
    server = segment(model=model, part="trunk")
    trunk, optimiser = plain("trunk", model)
    for step in range(3):
        smashed = batch(8, salt=step)["smashed"]
        reply, _ = server.call(ServerLink.answer, CALLER, {"smashed": smashed}, {})
        x = smashed.clone().requires_grad_()
        with dropping(step):
            features = passed(trunk, x)
        assert features.ndim == 4
        assert plain_float32(reply["features"])
        assert torch.equal(reply["features"], features)
        generator = torch.Generator().manual_seed(step)
        gradient = torch.randn(features.shape, generator=generator)
        reply, _ = server.call(ServerLink.answer, CALLER, {"feature-gradient": gradient}, {})
        optimiser.zero_grad()
        features.backward(gradient)
        optimiser.step()
        assert plain_float32(reply["gradient"])
        assert torch.equal(reply["gradient"], x.grad)
    assert server.call(ServerModel.digest) == digest(trunk.state_dict())


@pytest.mark.parametrize("samples", [0, 1, 40])
def test_outputs_are_those_of_autocast_in_float32_and_leave_no_trace(samples):
    server = segment()
    server.call(ServerLink.answer, CALLER, batch(8), {})
    before = server.call(ServerModel.digest)
    smashed = upload(samples)[0]
    server.call(Scoring.add, "test", 3, 0, smashed)
    outputs, probabilities = server.call(Scoring.outputs, 3), server.call(Scoring.probabilities, 3)
    network, _ = plain()
    network.load_state_dict(server.call(ServerModel.state))
    with torch.no_grad():
        expected = passed(network.eval(), torch.from_numpy(smashed))
    assert outputs.dtype == probabilities.dtype == np.float32
    assert outputs.shape == probabilities.shape == (samples, 10)
    assert torch.equal(torch.from_numpy(outputs), expected)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert server.call(ServerModel.digest) == before


@pytest.mark.parametrize("borders", [(1, 17), (9, 300, 640)])
def test_the_chunks_of_an_upload_change_nothing(borders):
    found = []
    for stops in ((700,), (*borders, 700)):
        server, start = segment(model=("cnn", *VGG[1:])), 0
        for chunk, stop in enumerate(stops):
            smashed, labels, ids = (part[start:stop] for part in upload(700))
            server.call(Shards.add, 0, chunk, smashed, labels, ids)
            server.call(Scoring.add, "test", 0, chunk, smashed)
            start = stop
        server.call(Shards.train, 0)
        found.append((server.call(ServerModel.digest), server.call(Scoring.outputs, 0).tolist()))
    assert found[0] == found[1]


def test_state_is_laid_out_as_in_float32_and_copies_of_clients_average():
    server = segment()
    shapes = {name: one.shape for name, one in segment("float32").call(ServerModel.state).items()}
    server.call(ServerModel.branch, [0, 1], epoch=0)
    for client in (0, 1):
        server.call(ServerLink.answer, Caller(client, "learn"), batch(8, salt=client), {})
    server.call(ServerModel.merge, {0: 1.0, 1: 3.0})
    merged = server.call(ServerModel.state)

    alone = []
    for client in (0, 1):
        network, optimiser = plain()
        tensors = batch(8, salt=client)
        with dropping(0, "train", client, 0):
            F.cross_entropy(passed(network, tensors["smashed"]), tensors["labels"]).backward()
        optimiser.step()
        alone.append(network.state_dict())
    for name, value in merged.items():
        assert value.is_contiguous()
        if value.is_floating_point():
            expected = alone[0][name] * 0.25 + alone[1][name] * 0.75
            assert value.dtype == torch.float32
            assert torch.equal(value, expected)
    assert {name: one.shape for name, one in merged.items()} == shapes
    assert digest(merged) == server.call(ServerModel.digest)
    # Which refuses what is not contiguous.
    assert save(merged)


def test_a_fresh_segment_has_the_weights_of_float32():
    assert segment().call(ServerModel.digest) == segment("float32").call(ServerModel.digest)


def test_what_a_folder_keeps_is_gone_on_with_as_if_nobody_had_stopped(tmp_path):
    def taken_up(folder):
        server = segment()
        server.call(KeptState.open, str(folder))
        return server

    going = segment()
    going.call(Shards.add, 0, 0, *upload(33))
    going.call(Shards.train, 0)

    server = taken_up(tmp_path / "state")
    server.call(KeptState.begin, "first")
    server.call(Shards.add, 0, 0, *upload(33))
    server.call(Shards.train, 0)
    server.call(ServerModel.keep_checkpoint, 0)
    server.call(KeptState.seal)
    server.call(KeptState.commit, "first")
    again = taken_up(tmp_path / "state")
    assert (
        again.call(ServerModel.digest)
        == server.call(ServerModel.digest)
        == going.call(ServerModel.digest)
    )
    # An optimiser is not kept: all begin a stage.
    (stage, *_) = METHODS.get("fine-tune")({}).stages()
    for one in (going, again):
        one.call(ServerModel.begin, stage)
        one.call(Shards.train, 0)
    assert (
        again.call(ServerModel.digest)
        == going.call(ServerModel.digest)
        != server.call(ServerModel.digest)
    )
    again.call(ServerModel.restore_checkpoint, 0)
    assert again.call(ServerModel.digest) == server.call(ServerModel.digest)


def test_a_teacher_answers_in_float32_and_is_the_segment_as_it_was():
    server = segment()
    server.call(ServerLink.answer, CALLER, batch(8), {})
    network, _ = plain()
    network.load_state_dict(server.call(ServerModel.state))
    (stage, *_) = METHODS.get("distillation")({}).stages()
    assert "original" in stage.objective.teachers
    server.call(ServerModel.begin, stage)
    smashed = batch(9, salt=4)["smashed"]
    reply, _ = server.call(ServerLink.answer, CALLER, {"smashed": smashed}, {"teacher": "original"})
    with torch.no_grad():
        expected = passed(network.eval(), smashed)
    assert plain_float32(reply["outputs"])
    assert torch.equal(reply["outputs"], expected)


# What is refused.


class Stubborn(nn.Module):
    """Takes products of matrices with weights that autocast does not reach."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 3))

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return x @ self.weight


def stubborn(input_shape, num_labels):
    layers = OrderedDict(
        first=nn.Conv2d(input_shape[0], 8, 3, padding=1),
        pool=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(8), nn.Flatten()),
        head=Stubborn(),
    )
    return Network(layers, cut="first")


def test_a_model_that_does_not_compute_so_is_refused_in_one_line(toy):
    model = toy(stubborn)
    check_computes("float32", "server", model, (1, 8, 8), 3)
    with pytest.raises(UserError) as refused:
        check_computes("bfloat16", "server", model, (1, 8, 8), 3)
    message = str(refused.value)
    assert message.startswith(
        f"precision='bfloat16' is not possible; allowed: float32 (model={model!r} does not compute"
    )
    assert "\n" not in message


@pytest.mark.parametrize("model", ["cnn", "vgg", "resnet18"])
@pytest.mark.parametrize("part", ["server", "trunk"])
def test_our_models_compute_so(model, part):
    check_computes("bfloat16", part, model, (3, 32, 32), 10)


def test_a_gpu_without_such_arithmetic_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "An Old One")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    check_device("bfloat16", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    check_device("float32", torch.device("cuda"))
    check_device("bfloat16", torch.device("cpu"))
    line = r"^precision='bfloat16' is not possible; allowed: float32 \(on An Old One\)$"
    with pytest.raises(UserError, match=line):
        check_device("bfloat16", torch.device("cuda"))
