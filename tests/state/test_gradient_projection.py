"""Gradient projection weeks later: caches that are rewritten, so that nothing forgotten remains."""

import pytest
import torch

from models.split import build_segment
from simulations.config import RunConfig
from simulations.plan import deal
from tests.local_grid import LocalRun
from tests.state.bench import NUM_CLIENTS, SHORT, digests_noted, folders, learn, unlearn
from unlearning.exactness import derive_seed
from unlearning.gradient_cache import GradientCache
from unlearning.projection import Replay
from unlearning.tensor_store import TensorStore

D = {
    **SHORT,
    "strategy": "gradient-projection",
    "unlearning": "gradient-projection",
    "server_epochs": 3,
    "learning_rate": 0.05,
    "weight_decay": 0.01,
}
FIRST, SECOND = ("class:2", 1), ("samples:0.5@class:3", 0)


@pytest.fixture(scope="module")
def settings(digits):
    return {**D, "dataset": digits}


def cache_of(folder, settings):
    run = TensorStore(folder).load("gradient-run")
    steps = TensorStore(folder).load("gradient-steps-0") if run is None else run
    name = bytes((run["name"] if run else steps["run"]).tolist()).decode()
    return GradientCache(folder, name, settings.get("cache_codec", "float32"))


def caches(path, settings):
    """The caches of a state-dir by side; they all know the name of the server's run."""
    server = cache_of(folders(path)["server"], settings)
    run = server._run
    codec = settings.get("cache_codec", "float32")
    return {
        side: server if side == "server" else GradientCache(folder, run, codec)
        for side, folder in folders(path).items()
    }


def fresh(settings, side):
    state = RunConfig(dataset=settings["dataset"])
    data, _ = deal(state, NUM_CLIENTS)
    owner = (
        []
        if side == "server"
        else ["shared" if settings.get("client_sync") == "handoff" else int(side.split()[1])]
    )
    part = side.split()[0]
    seed = derive_seed(0, f"{part}-segment", *owner)
    segment = build_segment(part, "cnn", data.input_shape, data.num_classes, seed)
    return {name: one.detach() for name, one in segment.named_parameters()}


@pytest.mark.parametrize(
    "more",
    [{}, {"client_sync": "handoff"}, {"client_sync": "handoff", "momentum": 0.0}],
    ids=["own segments", "handoff", "no momentum"],
)
def test_a_rewritten_cache_is_a_training_that_ends_where_the_weights_are(settings, more, tmp_path):
    """Replayed from fresh weights it gives every weight on the way, and the last; twice."""
    settings = {**settings, **more}
    path = tmp_path / "state"
    learn(path, settings)
    for request in (FIRST, SECOND):
        unlearn(path, settings, request, nodes=NUM_CLIENTS)
        kept, handoff = caches(path, settings), settings.get("client_sync") == "handoff"
        for side, cache in kept.items():
            if side == "server" or not handoff:
                parts = [cache]
            else:
                parts = [one for name, one in kept.items() if name != "server"]
            steps = {step.number: one for one in parts for step in one.steps}
            replay, weights_seen = Replay(fresh(settings, side), {}, settings["momentum"]), 0
            known = {step.number: step for one in parts for step in one.steps}
            stage = 0
            for number in sorted(steps):
                one, step = steps[number], known[number]
                if step.stage != stage:
                    replay, stage = Replay(replay.weights, {}, settings["momentum"]), step.stage
                if one.has_weights_before(number):
                    _, weights, momentum = one.weights_before(number)
                    weights_seen += 1
                    close(replay.weights, weights)
                    if momentum:
                        close(replay._momentum, momentum)
                replay.take(one.gradients(number), step.learning_rate, one.shifts(number))
            segment = TensorStore(folders(path)[side]).load("segment")
            close(replay.weights, segment)
            assert weights_seen > 1


def close(left, right):
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("more", [{}, {"client_sync": "handoff"}, {"shares": "whole"}])
def test_a_later_process_forgets_as_the_run_that_learned_would(settings, more, tmp_path):
    settings = {**settings, **more}
    path = tmp_path / "state"
    request = "samples:0.1@class:2" if "shares" in more else "class:2"
    learned = learn(path, settings)
    assert learned.digests == LocalRun(NUM_CLIENTS, **settings).digests
    later = unlearn(path, settings, (request, 0), nodes=NUM_CLIENTS)
    at_once = LocalRun(NUM_CLIENTS, **{**settings, "forget": request})
    assert later.digests == digests_noted(path) == at_once.digests
