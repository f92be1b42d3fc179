"""The cache of gradients: what is added comes back, and a training can be replayed from it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from split_unlearning.unlearning.gradient_projection import cache as gradient_cache
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.codec import CODECS, encode
from split_unlearning.unlearning.gradient_projection.recorder import StepRecorder
from split_unlearning.unlearning.gradient_projection.sequential import Replay, coefficients
from split_unlearning.unlearning.gradient_projection.steps import Step
from split_unlearning.unlearning.state_folder import StateFolder, TemporaryFolder
from tests.refusals import refusal

SHAPES = {"conv.weight": (3, 2, 2), "conv.bias": (3,)}


def drawn(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def filled(files, numbers, codec="float32", every=1, run="a run"):
    cache = GradientCache(files, run, codec, every)
    for number in numbers:
        ids = np.arange(number, number + 3, dtype=np.int64)
        cache.add(Step(number, number % 2, 3, 0.1 * (1 + number), ids), drawn(number))
    cache.flush()
    return cache


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 40), min_size=1).map(sorted), st.integers(1, 4), st.integers(1, 200))
def test_what_was_added_comes_back_whatever_the_pieces(numbers, every, piece_bytes):
    before, gradient_cache._PIECE_BYTES = gradient_cache._PIECE_BYTES, piece_bytes
    try:
        files = {}
        written = filled(files, numbers, every=every)
    finally:
        gradient_cache._PIECE_BYTES = before
    for cache in (written, GradientCache(files, "a run", every=every)):
        assert [step.number for step in cache.steps] == numbers
        for step in cache.steps:
            assert (step.client, step.batch_size) == (step.number % 2, 3)
            assert step.learning_rate == 0.1 * (1 + step.number)
            assert step.ids.tolist() == list(range(step.number, step.number + 3))
            if step.number % every:
                with pytest.raises(KeyError):
                    cache.gradients(step.number)
            else:
                found, added = cache.gradients(step.number), drawn(step.number)
                assert found.keys() == added.keys()
                assert all(torch.equal(found[name], added[name]) for name in added)


@pytest.mark.parametrize(("codec", "error"), [("float16", 1e-3), ("int8", 0.5 / 127 + 1e-6)])
@given(seed=st.integers(0, 1000), size=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=30)
def test_a_smaller_codec_is_off_by_what_it_says(codec, error, seed, size):
    cache = GradientCache({}, "a run", codec)
    added = drawn(seed, size)
    cache.add(Step(0, 0, 1, 0.1), added)
    found = cache.gradients(0)
    for name in added:
        assert found[name].dtype == torch.float32
        assert (found[name] - added[name]).abs().max() <= error * added[name].abs().max()


def test_codecs_are_smaller():
    sizes = {
        codec: filled({}, range(200), codec).bytes - filled({}, range(200), codec, 10**9).bytes
        for codec in CODECS
    }
    assert sizes["int8"] < 0.5 * sizes["float32"]
    assert sizes["float16"] < 0.6 * sizes["float32"]
    large = {"weight": torch.randn(100, 100)}
    kept = {codec: sum(one.nbytes for one in encode(large, codec).values()) for codec in CODECS}
    assert kept["sketch"] < 0.13 * kept["float32"]


def sketched(*gradients):
    cache = GradientCache({}, "a run", "sketch")
    for number, gradient in enumerate(gradients):
        cache.add(Step(number, 0, 1, 0.1), {"weight": gradient})
    return [cache.gradients(number)["weight"] for number in range(len(gradients))]


@given(seed=st.integers(0, 1000), left=st.floats(-3, 3), right=st.floats(-3, 3))
@settings(deadline=None, max_examples=30)
def test_a_sketch_of_a_sum_is_the_sum_of_sketches(seed, left, right):
    generator = torch.Generator().manual_seed(seed)
    one, two = (torch.randn(30, 9, generator=generator) for _ in range(2))
    both, first, second = sketched(left * one + right * two, one, two)
    assert both.shape == (30, 9)
    torch.testing.assert_close(both, left * first + right * second, atol=1e-4, rtol=1e-4)


def test_a_sketch_is_right_on_average_and_keeps_small_tensors_as_they_are():
    """The draw is one for each size: over many sizes a value comes back, and so does a product."""
    values, products, wanted = [], [], []
    for size in range(400, 800):
        one = torch.zeros(size)
        one[7] = 1.0
        two = torch.randn(size, generator=torch.Generator().manual_seed(size))
        (found, other) = sketched(one, two)
        values.append(other[7] - two[7])
        # Sums of eight: the product of two sketches as they are read is eight times as large.
        products.append(found @ other / 8)
        wanted.append(two[7])
        assert found[7] == 1.0
    assert abs(np.mean(values)) < 0.5
    assert np.corrcoef(products, wanted)[0, 1] > 0.2
    small = torch.randn(8, 8)
    assert torch.equal(sketched(small)[0], small)


def test_a_gradient_of_zeros_stays_zero():
    cache = GradientCache({}, "a run", "int8")
    cache.add(Step(0, 0, 1, 0.1), {"bias": torch.zeros(3), "small": torch.full((2,), 1e-44)})
    assert not cache.gradients(0)["bias"].any()
    assert cache.gradients(0)["small"].isfinite().all()


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_what_cannot_be_kept_is_refused(codec):
    cache = GradientCache({}, "a run", codec)
    too_large = float("inf") if codec == "float32" else 1e6
    with pytest.raises(ValueError, match=f"step 4 cannot be kept as {codec}"):
        cache.add(Step(4, 0, 1, 0.1), {"bias": torch.tensor([too_large])})


def test_steps_come_in_order():
    cache = filled({}, [3])
    with pytest.raises(ValueError, match="step 3 comes after step 3"):
        cache.add(Step(3, 0, 1, 0.1), drawn(0))


def test_a_cache_of_another_run_is_refused():
    files = {}
    filled(files, [0, 1])
    line = refusal(GradientCache, files, "another run", error=ValueError)
    assert "'a run', not 'another run'" in line


def test_other_names_are_left_alone():
    files = {"segment": b"kept"}
    cache = filled(files, range(3))
    cache.keep_weights(0, drawn(0), {})
    cache.clear()
    assert files == {"segment": b"kept"}
    assert cache.steps == []


def test_it_lies_in_a_folder_and_is_found_there(tmp_path):
    folder = StateFolder(tmp_path / "kept", "server")
    folder.begin("attempt")
    filled(folder, range(5))
    folder.flush()
    folder.commit("attempt")
    found = GradientCache(StateFolder(tmp_path / "kept", "server"), "a run")
    assert torch.equal(found.gradients(4)["conv.bias"], drawn(4)["conv.bias"])


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def train(segment, cache, steps, learning_rate, momentum, weight_decay, weights_every=0):
    """Train in plain PyTorch; yield the weights before each step, and its batch."""
    optimiser = torch.optim.SGD(
        segment.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )
    recorder = StepRecorder(cache, segment, optimiser, 0, weights_every)
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        x, y = torch.randn(6, 5, generator=generator), torch.randint(3, (6,), generator=generator)
        weights = {name: one.detach().clone() for name, one in segment.named_parameters()}
        optimiser.zero_grad()
        nn.functional.cross_entropy(segment(x), y).backward()
        recorder.announce(0, 6)
        optimiser.step()
        yield weights, x, y


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.01)])
def test_a_training_is_replayed_bit_for_bit_and_recording_changes_nothing(momentum, weight_decay):
    segment, cache = network(1), GradientCache(TemporaryFolder(), "a run")
    befores = [before for before, _, _ in train(segment, cache, 20, 0.1, momentum, weight_decay)]
    first, weights, buffers = cache.weights_before(0)
    assert (first, buffers) == (0, {})
    replay = Replay(weights, buffers, momentum)
    for step, before in zip(cache.steps, befores, strict=True):
        assert all(torch.equal(replay.weights[name], before[name]) for name in before)
        replay.take(cache.gradients(step.number), step.learning_rate)
    learned = dict(segment.named_parameters())
    assert all(torch.equal(replay.weights[name], learned[name]) for name in learned)
    # And in one sum, as the page of the method has it.
    moved = coefficients([step.learning_rate for step in cache.steps], momentum)
    for name, start in weights.items():
        total = sum(c * cache.gradients(n)[name] for n, c in enumerate(moved.tolist()))
        torch.testing.assert_close(start - total, learned[name].detach(), atol=1e-4, rtol=0)

    unrecorded = network(1)
    optimiser = torch.optim.SGD(
        unrecorded.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay
    )
    for _, x, y in train(network(1), GradientCache({}, "other"), 20, 0.1, momentum, weight_decay):
        optimiser.zero_grad()
        nn.functional.cross_entropy(unrecorded(x), y).backward()
        optimiser.step()
    for name, parameter in unrecorded.named_parameters():
        assert torch.equal(parameter, learned[name])


def test_weights_on_the_way_come_with_their_momentum():
    cache = GradientCache({}, "a run")
    befores = [before for before, _, _ in train(network(2), cache, 10, 0.1, 0.5, 0.0, 4)]
    assert [cache.weights_before(n)[0] for n in range(10)] == [0] * 4 + [4] * 4 + [8] * 2
    first, weights, momentum = cache.weights_before(6)
    assert momentum.keys() == weights.keys()
    replay = Replay(weights, momentum, 0.5)
    for number in range(first, 9):
        replay.take(cache.gradients(number), 0.1)
    for name, weight in befores[9].items():
        assert torch.equal(replay.weights[name], weight)


def test_what_is_read_next_is_asked_for_before(tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_cache, "_PIECE_BYTES", 1)
    folder = StateFolder(tmp_path / "kept", "server")
    folder.begin("attempt")
    filled(folder, range(3))
    folder.flush()
    folder.commit("attempt")
    expected = []
    monkeypatch.setattr(StateFolder, "expect", lambda _, name: expected.append(name))
    found = GradientCache(StateFolder(tmp_path / "kept", "server"), "a run")
    for number in range(3):
        found.gradients(number)
    assert expected == ["gradients-1", "gradients-2"]
