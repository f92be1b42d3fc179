"""The server segment, against plain PyTorch loops, bit for bit."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.cnn import cnn
from split_unlearning.models.devices import device
from split_unlearning.models.split import build_segment, smashed_shape
from split_unlearning.models.training import TrainingSettings
from split_unlearning.models.vgg import vgg
from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.part import ServerPart, frame
from split_unlearning.strategies.server.precision import forward
from split_unlearning.strategies.server.scoring import Scoring
from split_unlearning.strategies.server.segment import LocalSegment
from split_unlearning.strategies.server.setting import SegmentSetting
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.transport.link import Caller
from split_unlearning.unlearning.exactness import digest, order

TRAINING = TrainingSettings(
    seed=5, batch_size=8, learning_rate=0.05, momentum=0.9, weight_decay=1e-3
)
CALLER = Caller(client=0, phase="learn")


def segment(training=TRAINING, model="cnn", input_shape=(1, 8, 8), part="server"):
    return LocalSegment(SegmentSetting(model, input_shape, 10, training, part=part))


def whole(architecture=cnn, input_shape=(1, 8, 8), seed=TRAINING.seed):
    """Return the network whose server part a fresh server segment is, without a cut."""
    before = torch.get_rng_state()
    torch.manual_seed(derive_seed(seed, "server-segment"))
    network = architecture(input_shape, 10).whole()
    torch.set_rng_state(before)
    return network.to(device())


def upload(samples, salt=0, shape=(8, 4, 4)):
    rng = np.random.default_rng([samples, salt])
    smashed = rng.normal(size=(samples, *shape)).astype(np.float32)
    return smashed, rng.integers(0, 10, samples), np.arange(samples, dtype=np.int64) * 3 + salt


def batch(samples, salt=0, shape=(8, 4, 4)):
    smashed, labels, _ = upload(samples, salt, shape)
    return {"smashed": torch.from_numpy(smashed), "labels": torch.from_numpy(labels)}


def states_equal(state, other):
    assert state.keys() == other.keys()
    return all(torch.equal(state[name], other[name].cpu()) for name in state)


def test_training_on_the_cache_is_a_plain_loop():
    server = segment()
    uploads = {2: upload(21, salt=2), 0: upload(12, salt=0)}
    for client, parts in uploads.items():
        server.call(Shards.add, client, 0, *(part[:9] for part in parts))
        server.call(Shards.add, client, 1, *(part[9:] for part in parts))
    for epoch in range(3):
        server.call(Shards.train, epoch)

    network = whole()[1:].train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    smashed, labels, ids = (np.concatenate([uploads[0][i], uploads[2][i]]) for i in range(3))
    keys = ids + np.repeat([0, 2], [12, 21]) * 2**40
    for epoch in range(3):
        visited = order(keys, derive_seed(TRAINING.seed, "server-order", "train", epoch))
        # 33 samples in batches of 8: the last one joins the batch before.
        for rows in (visited[:8], visited[8:16], visited[16:24], visited[24:]):
            optimiser.zero_grad()
            x, y = (torch.from_numpy(part[rows]).to(device()) for part in (smashed, labels))
            F.cross_entropy(network(x), y).backward()
            optimiser.step()
    assert states_equal(server.call(ServerModel.state), network.state_dict())
    assert server.call(ServerModel.digest) == digest(network.state_dict())


def test_the_answer_to_a_batch_is_what_autograd_gives_in_the_unsplit_network():
    server = segment()
    network = whole().train()
    seen = []
    network.block1.register_forward_hook(lambda *call: seen.append(call[2]))
    rest = network[1:]
    optimiser = torch.optim.SGD(rest.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for step, samples in enumerate((8, 8, 3, 9)):
        rng = np.random.default_rng(step)
        x = torch.from_numpy(rng.normal(size=(samples, 1, 8, 8)).astype(np.float32))
        y = torch.from_numpy(rng.integers(0, 10, samples))
        optimiser.zero_grad()
        logits = network(x.to(device()))
        smashed = seen.pop()
        smashed.retain_grad()
        F.cross_entropy(logits, y.to(device())).backward()
        optimiser.step()

        tensors = {"smashed": smashed.detach().cpu().clone(), "labels": y}
        reply, fields = server.call(ServerLink.answer, CALLER, tensors, {})
        assert (set(reply), fields) == ({"gradient"}, {})
        assert reply["gradient"].dtype == torch.float32
        assert torch.equal(reply["gradient"], smashed.grad.cpu())
        assert states_equal(server.call(ServerModel.state), rest.state_dict())


def test_initialise_starts_again_from_the_same_bits():
    server = segment()
    fresh = server.call(ServerModel.digest)
    assert fresh == digest(whole()[1:].state_dict())
    first = server.call(ServerLink.answer, CALLER, batch(8), {})[0]["gradient"].clone()
    trained = server.call(ServerModel.digest)
    assert trained != fresh
    server.call(ServerLink.answer, CALLER, batch(8, salt=1), {})
    server.call(ServerModel.initialise)
    assert server.call(ServerModel.digest) == fresh
    # Momentum, too, is gone: the same batches lead to the same weights.
    assert torch.equal(server.call(ServerLink.answer, CALLER, batch(8), {})[0]["gradient"], first)
    assert server.call(ServerModel.digest) == trained


def test_weights_follow_from_the_seed_of_the_run():
    digests = {segment(TrainingSettings(seed=seed)).call(ServerModel.digest) for seed in (0, 1, 0)}
    assert len(digests) == 2


def test_what_state_returns_is_a_copy():
    server = segment()
    before = server.call(ServerModel.digest)
    for tensor in server.call(ServerModel.state).values():
        tensor.zero_()
    assert server.call(ServerModel.digest) == before


GOOD = batch(4)


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({**GOOD, "smashed": GOOD["smashed"].double()}, "float64"),
        ({**GOOD, "smashed": GOOD["smashed"].half()}, "float16"),
        ({**GOOD, "smashed": GOOD["smashed"][:, :7]}, r"\(4, 7, 4, 4\)"),
        ({**GOOD, "smashed": GOOD["smashed"].flatten(1)}, r"\(4, 128\)"),
        ({**GOOD, "smashed": GOOD["smashed"][0]}, r"\(8, 4, 4\)"),
        ({**GOOD, "smashed": torch.tensor(1.0)}, r"shape \(\)"),
        ({**GOOD, "labels": GOOD["labels"].int()}, "int32"),
        ({**GOOD, "labels": GOOD["labels"].float()}, "float32"),
        ({**GOOD, "labels": GOOD["labels"][:3]}, "4 samples"),
        ({**GOOD, "labels": GOOD["labels"][:, None]}, r"\(4, 1\)"),
        ({**GOOD, "labels": torch.tensor([0, 1, 2, 10])}, r"outside 0\.\.9"),
        ({**GOOD, "labels": torch.tensor([0, 1, 2, -1])}, r"outside 0\.\.9"),
        ({**GOOD, "labels": torch.tensor([0, 1, 2, -100])}, r"outside 0\.\.9"),
        ({name: tensor[:0] for name, tensor in GOOD.items()}, "0 samples"),
        (batch(10), "a batch has 10 samples; allowed: at most 9"),
        ({**GOOD, "smashed": GOOD["smashed"] / 0}, "smashed data is not finite"),
        ({"smashed": GOOD["smashed"]}, "'labels'"),
        ({"labels": GOOD["labels"]}, "'smashed'"),
        ({**GOOD, "weights": GOOD["labels"]}, "weights"),
        ({}, r"holds \['labels', 'smashed'\] here, not \[\]"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_leaves_no_trace(tensors, complaint):
    server = segment()
    server.call(ServerLink.answer, CALLER, batch(8), {})
    before = server.call(ServerModel.digest)
    with pytest.raises(ValueError, match=complaint):
        server.call(ServerLink.answer, CALLER, tensors, {})
    assert server.call(ServerModel.digest) == before
    # Nor in what comes after: steps are counted and momentum is kept as if nothing had come.
    server.call(ServerLink.answer, CALLER, batch(8, salt=1), {})
    other = segment()
    for salt in (0, 1):
        other.call(ServerLink.answer, CALLER, batch(8, salt), {})
    assert server.call(ServerModel.digest) == other.call(ServerModel.digest)


@pytest.mark.parametrize("what", ["train", "test"])
@pytest.mark.parametrize("smashed", [np.zeros((3, 8, 4, 4)), np.zeros((3, 8, 4, 5), np.float32)])
def test_an_upload_that_does_not_fit_is_refused_and_the_shard_stays(what, smashed):
    server = segment()
    server.call(Shards.add, 1, 0, *upload(3))
    server.call(Scoring.add, "test", 1, 0, upload(3)[0])
    predicted, size = (
        server.call(Scoring.predict, 1).tolist(),
        server.call(KeptState.bytes_of_caches),
    )
    method, split, rest = Shards.add, (), upload(3)[1:]
    if what == "test":
        method, split, rest = Scoring.add, ("test",), ()
    for chunk in (0, 1):
        with pytest.raises(ValueError, match=r"takes torch\.float32 of shape"):
            server.call(method, *split, 1, chunk, smashed, *rest)
    assert (server.call(Scoring.predict, 1).tolist(), server.call(KeptState.bytes_of_caches)) == (
        predicted,
        size,
    )


@pytest.mark.parametrize("label", [-100, -1, 10])
def test_an_upload_with_a_label_outside_is_refused(label):
    smashed, labels, ids = upload(4)
    with pytest.raises(ValueError, match="labels"):
        segment().call(Shards.add, 0, 0, smashed, np.where(labels == labels[0], label, labels), ids)


def test_what_is_cached_does_not_change_with_the_arrays_it_came_from():
    servers = [segment(), segment()]
    for server in servers:
        parts = upload(12)
        server.call(Shards.add, 0, 0, *parts)
        if server is servers[0]:
            for part in parts:
                part[:] = 0
        server.call(Shards.train, 0)
    assert servers[0].call(ServerModel.digest) == servers[1].call(ServerModel.digest)


@pytest.mark.parametrize("samples", [1, 20, 600])
def test_predictions_are_those_of_an_eval_forward(samples):
    server = segment(model="vgg", input_shape=(1, 16, 16))
    server.call(ServerLink.answer, CALLER, batch(8, shape=(8, 8, 8)), {})
    smashed = upload(samples, salt=4, shape=(8, 8, 8))[0]
    server.call(Scoring.add, "test", 3, 0, smashed[: samples // 2])
    server.call(Scoring.add, "test", 3, 1, smashed[samples // 2 :])
    before = server.call(ServerModel.digest)
    predicted = server.call(Scoring.predict, 3)

    network = vgg((1, 16, 16), 10).whole()[1:].to(device())
    network.load_state_dict(server.call(ServerModel.state))
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(smashed).to(device())).argmax(1)
    assert predicted.dtype == np.int64
    assert predicted.tolist() == expected.tolist()
    # Batch norm saw none of it, and dropout is on again afterwards.
    assert server.call(ServerModel.digest) == before
    other = segment(model="vgg", input_shape=(1, 16, 16))
    other.call(ServerLink.answer, CALLER, batch(8, shape=(8, 8, 8)), {})
    for one in (server, other):
        one.call(ServerLink.answer, CALLER, batch(8, salt=1, shape=(8, 8, 8)), {})
    assert server.call(ServerModel.digest) == other.call(ServerModel.digest)


def test_an_empty_upload_has_an_empty_prediction():
    server = segment()
    server.call(Scoring.add, "test", 1, 0, upload(0)[0])
    predicted = server.call(Scoring.predict, 1)
    assert predicted.shape == (0,)
    assert predicted.dtype == np.int64


def test_dropout_draws_the_same_in_every_process_and_differently_at_every_step():
    def trained(steps=2, disturb=False):
        server = segment(model="vgg", input_shape=(1, 16, 16))
        gradients = []
        for _ in range(steps):
            if disturb:
                torch.rand(13)
            reply, _ = server.call(ServerLink.answer, CALLER, batch(8, shape=(8, 8, 8)), {})
            gradients.append(reply["gradient"])
        return server.call(ServerModel.digest), gradients

    assert trained()[0] == trained(disturb=True)[0]

    # Without learning, what changes from step to step is dropout alone.
    still = TrainingSettings(learning_rate=1e-30)
    server = segment(still, model="vgg", input_shape=(1, 16, 16))
    first, second = (
        server.call(ServerLink.answer, CALLER, batch(8, shape=(8, 8, 8)), {})[0]["gradient"]
        for _ in range(2)
    )
    assert not torch.equal(first, second)
    server.call(ServerModel.initialise)
    again, _ = server.call(ServerLink.answer, CALLER, batch(8, shape=(8, 8, 8)), {})
    assert torch.equal(again["gradient"], first)


def test_training_leaves_the_global_generator_as_it_was():
    server = segment(model="vgg", input_shape=(1, 16, 16))
    before = torch.get_rng_state()
    server.call(ServerLink.answer, CALLER, batch(4, shape=(8, 8, 8)), {})
    server.call(ServerModel.initialise)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_upload_drops_a_shard():
    with_others, alone = segment(), segment()
    for server in (with_others, alone):
        server.call(Shards.add, 1, 0, *upload(20, salt=1))
    with_others.call(Shards.add, 0, 0, *upload(10))
    with_others.call(Shards.add, 0, 1, *upload(10, salt=2))
    assert with_others.call(KeptState.bytes_of_caches) == 2 * alone.call(KeptState.bytes_of_caches)
    with_others.call(Shards.add, 0, 0, *upload(0))
    assert (
        with_others.call(KeptState.bytes_of_caches)
        == alone.call(KeptState.bytes_of_caches)
        == 20 * (128 * 4 + 8)
    )
    for server in (with_others, alone):
        server.call(Shards.train, 0)
    assert with_others.call(ServerModel.digest) == alone.call(ServerModel.digest)


def test_a_cache_without_samples_cannot_be_trained_on():
    server = segment()
    server.call(Shards.add, 0, 0, *upload(0))
    before = server.call(ServerModel.digest)
    with pytest.raises(ValueError, match="empty"):
        server.call(Shards.train, 0)
    assert server.call(ServerModel.digest) == before


def test_test_activations_are_neither_trained_on_nor_counted():
    server, other = segment(), segment()
    for one in (server, other):
        one.call(Shards.add, 0, 0, *upload(12))
    server.call(Scoring.add, "test", 0, 0, upload(30, salt=3)[0])
    assert server.call(KeptState.bytes_of_caches) == other.call(KeptState.bytes_of_caches)
    for one in (server, other):
        one.call(Shards.train, 0)
    assert server.call(ServerModel.digest) == other.call(ServerModel.digest)


def test_seconds_of_training_add_up_and_are_handed_out_once(monkeypatch):
    server = segment()
    # A clock that a second passes on at each look: training looks twice, prediction never.
    clock = SimpleNamespace(perf_counter=count().__next__)
    monkeypatch.setattr("split_unlearning.strategies.server.clock.time", clock)
    assert server.call(Clock.take) == 0
    server.call(ServerLink.answer, CALLER, batch(8), {})
    server.call(ServerLink.answer, CALLER, batch(8), {})
    server.call(Shards.add, 0, 0, *upload(8))
    server.call(Scoring.add, "test", 0, 0, upload(8)[0])
    server.call(Shards.train, 0)
    server.call(Scoring.predict, 0)
    assert server.call(Clock.take) == 3
    assert server.call(Clock.take) == 0


def test_a_trunk_equals_autograd_through_the_unsplit_network():
    server = segment(part="trunk")
    trunk = build_segment(
        "trunk", "cnn", (1, 8, 8), 10, derive_seed(TRAINING.seed, "server-segment")
    )
    steps = TRAINING.optimiser(trunk)
    for salt in range(3):
        smashed = batch(8, salt=salt)["smashed"]
        reply, _ = server.call(ServerLink.answer, CALLER, {"smashed": smashed}, {})
        x = smashed.clone().requires_grad_()
        features = trunk(x)
        assert torch.equal(reply["features"], features)
        gradient = torch.randn(features.shape, generator=torch.Generator().manual_seed(salt))
        reply, _ = server.call(ServerLink.answer, CALLER, {"feature-gradient": gradient}, {})
        steps.zero_grad()
        features.backward(gradient)
        steps.step()
        assert torch.equal(reply["gradient"], x.grad)
    assert server.call(ServerModel.digest) == digest(trunk.state_dict())


def test_running_means_keep_nothing_of_a_batch_that_is_refused():
    server = segment(model="resnet18")
    shape = smashed_shape("resnet18", (1, 8, 8), 10)
    bad = batch(4, shape=shape)
    bad["smashed"][0] = torch.nan
    before = server.call(ServerModel.digest)
    assert any("running_mean" in name for name in server.call(ServerModel.state))
    with pytest.raises(ValueError, match="smashed data is not finite"):
        server.call(ServerLink.answer, CALLER, bad, {})
    assert server.call(ServerModel.digest) == before


def test_a_trunk_refuses_what_comes_out_of_turn_or_does_not_fit():
    server = segment(part="trunk")
    before = server.call(ServerModel.digest)
    gradient = torch.zeros(4, 128)
    for tensors, complaint in (
        ({"feature-gradient": gradient}, "before any smashed data"),
        (GOOD, r"not \['labels', 'smashed'\]"),
    ):
        with pytest.raises(ValueError, match=complaint):
            server.call(ServerLink.answer, CALLER, tensors, {})
    server.call(ServerLink.answer, CALLER, {"smashed": GOOD["smashed"]}, {})
    with pytest.raises(ValueError, match=r"shape \(4, 7\); the features were .*\(4, 128\)"):
        server.call(ServerLink.answer, CALLER, {"feature-gradient": torch.zeros(4, 7)}, {})
    server.call(ServerLink.answer, CALLER, {"smashed": GOOD["smashed"]}, {})
    with pytest.raises(ValueError, match="the gradient of the features is not finite"):
        server.call(ServerLink.answer, CALLER, {"feature-gradient": gradient / 0}, {})
    with pytest.raises(ValueError, match="client 4 sends a gradient before"):
        server.call(ServerLink.answer, Caller(4, "learn"), {"feature-gradient": gradient}, {})
    assert server.call(ServerModel.digest) == before


def answered_at_once(server, monkeypatch, passed):
    """Have four clients' batches answered from a thread each; `passed` sees every step begin."""

    def step(*arguments):
        passed()
        return forward(*arguments)

    monkeypatch.setattr("split_unlearning.strategies.server.model.forward", step)
    with ThreadPoolExecutor(4) as streams:
        callers = [Caller(client, "learn") for client in range(4)]
        replies = [
            streams.submit(server.call, ServerLink.answer, one, batch(8, one.client, (8, 8, 8)), {})
            for one in callers
        ]
        return [reply.result(timeout=60)[0]["gradient"] for reply in replies]


def test_clients_with_copies_of_their_own_learn_side_by_side_what_they_learn_in_turn(monkeypatch):
    # With dropout: the copies draw from one generator.
    side_by_side, in_turn = (segment(model="vgg", input_shape=(3, 16, 16)) for _ in range(2))
    for server in (side_by_side, in_turn):
        server.call(ServerModel.branch, range(4), epoch=0)
    # Nobody gets past it before all four are there.
    met = threading.Barrier(4, timeout=30)
    together = answered_at_once(side_by_side, monkeypatch, met.wait)
    monkeypatch.undo()
    alone = [
        in_turn.call(ServerLink.answer, Caller(client, "learn"), batch(8, client, (8, 8, 8)), {})[
            0
        ]["gradient"]
        for client in range(4)
    ]
    assert all(map(torch.equal, together, alone))
    for server in (side_by_side, in_turn):
        server.call(ServerModel.merge, dict.fromkeys(range(4), 1))
    assert side_by_side.call(ServerModel.digest) == in_turn.call(ServerModel.digest)


def test_one_set_of_weights_learns_from_one_batch_at_a_time(monkeypatch):
    at_once = []
    inside = threading.Semaphore(1)

    def passed():
        at_once.append(inside.acquire(blocking=False))
        time.sleep(0.05)
        inside.release()

    answered_at_once(segment(model="vgg", input_shape=(3, 16, 16)), monkeypatch, passed)
    assert at_once == [True] * 4


# Parts of a stranger's.


class Counting(ServerPart):
    """Counts what clients send; the count outlives the run."""

    def take_up(self, folder):
        super().take_up(folder)
        kept = self.kept.load("count")
        self.count = int(kept["count"]) if kept else 0

    @frame
    def count_up(self, client, tensors, value):
        self.count += len(tensors["samples"]) * int(value)
        return {"count": torch.tensor([self.count])}

    def counted(self):
        return self.count

    def keep(self):
        self.kept.save("count", {"count": torch.tensor(self.count)})


class Rival(ServerPart):
    @frame
    def batch(self, client, tensors, value):
        return {}


def with_parts(*own):
    return LocalSegment(SegmentSetting("cnn", (1, 8, 8), 10, TRAINING), own)


def test_a_part_answers_its_frames_and_is_called_by_its_methods():
    server, frames = with_parts(Counting), {"samples": torch.zeros(3)}
    for expected in (6, 12):
        reply, _ = server.call(ServerLink.answer, CALLER, frames, {"count-up": "2"})
        assert reply["count"].tolist() == [expected]
    assert server.call(Counting.counted) == 12
    with pytest.raises(TypeError, match=r"no part .* has Counting\.counted.*server_parts"):
        segment().call(Counting.counted)


def test_what_a_part_keeps_counts_once_it_is_committed(tmp_path):
    def count_up(server):
        server.call(ServerLink.answer, CALLER, {"samples": torch.zeros(1)}, {"count-up": "1"})

    for attempt, committed in (("first", True), ("second", False)):
        server = with_parts(Counting)
        server.call(KeptState.open, str(tmp_path / "state"))
        server.call(KeptState.begin, attempt)
        count_up(server)
        server.call(KeptState.seal)
        if committed:
            server.call(KeptState.commit, attempt)
    again = with_parts(Counting)
    again.call(KeptState.open, str(tmp_path / "state"))
    assert again.call(Counting.counted) == 1
    # Whoever commits what another process changed goes on from that.
    again.call(KeptState.commit, "second")
    assert again.call(Counting.counted) == 2


@pytest.mark.parametrize("fields", [{"unknown": ""}, {"teacher": "original", "count-up": "1"}])
def test_a_frame_that_no_part_answers_is_refused_with_those_that_there_are(fields):
    with pytest.raises(ValueError, match="a frame has one field, of batch, count-up, teacher, not"):
        with_parts(Counting).call(ServerLink.answer, CALLER, GOOD, fields)


def test_two_parts_that_answer_the_same_frames_are_refused():
    with pytest.raises(TypeError, match=r"Rival answers frames of another part: \['batch'\]"):
        with_parts(Rival)
