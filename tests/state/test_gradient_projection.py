"""Gradient projection weeks later: caches that are rewritten, so that nothing forgotten remains."""

import shutil
from functools import wraps
from unittest.mock import patch

import numpy as np
import pytest
import torch

from split_unlearning.clients.gradient_projection import GradientProjectionClient
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.preparation import deal
from split_unlearning.strategies.server.gradient_projection import GradientCaches
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.sequential import Replay, coefficients_of
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.configs import config_of
from tests.local_grid import LocalRun, dealt
from tests.state.bench import (
    NUM_CLIENTS,
    PROJECTED,
    digests_noted,
    folders,
    forgotten,
    found,
    learn,
    stopped,
    tree,
    unlearn,
)
from tests.state.crashing import Job, killed_at_random
from tests.state.forks import Forks

D = {**PROJECTED, "weight_decay": 0.01}
ASKING = 1
FIRST = ("class:2", ASKING)


@pytest.fixture(scope="module")
def settings(digits):
    return {**D, "dataset": digits}


def caches(path, settings):
    """The caches of a state-dir by side; they all know the name of the server's run."""
    known = TensorStore(folders(path)["server"]).load("gradient-run")
    run = bytes(known["name"].tolist()).decode()
    how = settings.get("cache_codec", "float32"), settings.get("cache_every", 1)
    return {side: GradientCache(folder, run, *how) for side, folder in folders(path).items()}


def fresh(settings, side):
    state = config_of(dataset=settings["dataset"])
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
    ("more", "absent"),
    [
        ({}, []),
        ({"client_sync": "handoff"}, []),
        ({"client_sync": "handoff", "momentum": 0.0}, []),
        ({"client_sync": "handoff"}, [2]),
    ],
    ids=["own segments", "handoff", "no momentum", "handoff, past one that is away"],
)
def test_a_rewritten_cache_is_a_training_that_ends_where_the_weights_are(
    settings, more, absent, tmp_path
):
    """Replayed from fresh weights it gives every weight on the way, and the last."""
    settings = {**settings, **more}
    path = tmp_path / "state"
    learn(path, settings)
    unlearn(path, settings, FIRST, nodes=NUM_CLIENTS - len(absent), absent=absent)
    # What lies with who is away is as it was.
    away = {f"client {client}" for client in absent}
    kept, handoff = caches(path, settings), settings.get("client_sync") == "handoff"
    for side, cache in kept.items():
        if side in away:
            continue
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
            if one.has_weights_before(number) and f"client {step.client}" not in away:
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


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"client_sync": "handoff"},
        {"shares": "whole"},
        {"cache_codec": "float16"},
        {"cache_codec": "int8", "client_sync": "handoff"},
        {"shares": "whole", "cache_every": 3},
        {"shares": "whole", "cache_codec": "sketch"},
    ],
    ids=["own segments", "handoff", "whole", "float16", "int8", "every third", "sketch"],
)
def test_a_later_process_forgets_as_the_run_that_learned_would(settings, more, tmp_path):
    settings = {**settings, **more}
    path = tmp_path / "state"
    request = "samples:0.1@class:2" if "shares" in more else "class:2"
    learned = learn(path, settings)
    assert learned.digests == LocalRun(NUM_CLIENTS, **settings).digests
    later = unlearn(path, settings, (request, 0), nodes=NUM_CLIENTS)
    at_once = LocalRun(NUM_CLIENTS, **{**settings, "forget": request})
    assert later.digests == digests_noted(path) == at_once.digests


# Nothing remains.


def tensors(path, settings, chosen):
    """What caches hold, as bytes: whole tensors, of those that are more than a few."""
    found = set()
    kept = torch.float16 if settings.get("cache_codec") == "float16" else torch.float32
    for side, cache in caches(path, settings).items():
        for step in cache.steps:
            if chosen(side, step) and cache.holds(step.number):
                found |= {big(one.to(kept)) for one in cache.gradients(step.number).values()}
    return found - {b""}


def big(tensor):
    """A tensor as bytes; nothing if it is small, or nearly all zero."""
    return tensor.numpy().tobytes() if tensor.count_nonzero() > 16 else b""


def weights(path, settings, after):
    """Segments, and the weights before every step from one on, as bytes."""
    found = set()
    for cache, folder in zip(caches(path, settings).values(), folders(path).values(), strict=True):
        kept = list(TensorStore(folder).load("segment").values())
        for step in cache.steps:
            if step.number >= after and cache.has_weights_before(step.number):
                _, before, momentum = cache.weights_before(step.number)
                kept += [*before.values(), *momentum.values()]
        found |= {big(one) for one in kept}
    return found - {b""}


@pytest.mark.parametrize("interrupted", ["", "prepared", "committed by the client"])
@pytest.mark.parametrize(
    "more",
    [
        {"client_sync": "handoff"},
        {"shares": "whole"},
        {"client_sync": "handoff", "cache_codec": "float16"},
    ],
    ids=["handoff", "whole", "float16"],
)
def test_no_byte_is_left_of_what_was_forgotten(more, interrupted, dealing, tmp_path):
    dataset, plan = dealing
    path = tmp_path / "state"
    settings = {**D, **more, "dataset": dataset.name}
    held = plan.train[ASKING]
    gone = held[dataset.y_train[held] == 2][: 1 if "shares" in more else None]
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(map(str, gone)))
    request = (f"ids:{file}", ASKING)
    with dealt(dataset, plan):
        learn(path, settings)
        asking = caches(path, settings)[f"client {ASKING}"]
        touched = {step.number for step in asking.steps if np.isin(step.ids, gone).any()}
        sides = ("server", f"client {ASKING}")
        gradients = tensors(
            path, settings, lambda side, step: side in sides and step.number in touched
        )
        pure = tensors(path, settings, lambda _, step: step.number not in touched)
        # Clients that did not ask keep segments of their own, which no forgotten sample has moved.
        old = weights(path, settings, min(touched) + 1) if "client_sync" in more else set()
        ids = {int(one).to_bytes(8, "little") for one in gone}
        # Everything is found before: else that it is not found afterwards would say nothing.
        for patterns in (gradients, pure, ids, old):
            assert found(path, patterns) == patterns
        assert min(map(len, (gradients, pure))) > 10
        if interrupted:
            with stopped(interrupted), pytest.raises(KeyboardInterrupt):
                unlearn(path, settings, request, nodes=NUM_CLIENTS)
            # Some folders may have been committed; who asked may be one of them.
            assert found(path, gradients)
        unlearn(path, settings, *([] if interrupted else [request]), nodes=NUM_CLIENTS)
        assert found(path, gradients) == set()
        assert found(path, old) == set()
        assert found(path, ids | {str(int(one)).encode() for one in gone}) == set()
        assert found(path, pure) == pure


@pytest.mark.parametrize("more", [{}, {"client_sync": "handoff"}])
def test_a_second_request_goes_on_from_the_first_and_says_what_it_is_worth(
    settings, more, tmp_path
):
    settings = {**settings, **more}
    path = tmp_path / "state"
    learn(path, settings)
    first = unlearn(path, settings, FIRST, nodes=NUM_CLIENTS)
    steps = {side: len(cache.steps) for side, cache in caches(path, settings).items()}
    second = unlearn(path, settings, ("samples:0.5@class:3", 0), nodes=NUM_CLIENTS)
    assert first.digests != second.digests == digests_noted(path)
    said = [phase["approximations"] for phase in second.phases]
    assert [sum("earlier request" in line for line in lines) for lines in said] == [0, 0, 1]
    now = caches(path, settings)
    # The fine-tuning of each request is cached behind what was learned.
    assert all(len(now[side].steps) > steps[side] for side in steps)
    assert {step.stage for step in now["server"].steps} == {0, 1, 2}
    left = np.concatenate([step.ids for one in now.values() for step in one.steps])
    gone = {one for ids in forgotten(path).values() for one in ids}
    assert gone
    assert not gone & set(left.tolist())


@pytest.mark.slow
def test_killed_at_random_moments(settings, tmp_path):
    """The caches change with everything else: all of it, or nothing."""
    settings = {**settings, "client_sync": "handoff"}
    # Everybody is needed, and everybody asks.
    requests = [("class:2", 1), ("samples:0.5@class:3", 0), ("samples:0.3@class:1", 2)]
    learned, whole = tmp_path / "learned", tmp_path / "whole"
    learn(learned, settings)
    shutil.copytree(learned, whole)
    with Forks() as forks:
        became = forks.done("unlearn", whole, settings, *requests)
        job = Job("unlearn", settings, requests, learned)
        hits = killed_at_random(forks, job, whole, tmp_path, became["seconds"], kills=8, seed=0)
    assert sum(hits.values()) == 8


# A client that is gone.


def noted(path, settings, how, *forget, **more):
    """The server's weights as the projection left them, before anybody trained on."""
    found, finish = [], GradientCaches.finish

    @wraps(finish)
    def finished(caches):
        finish(caches)
        found.append(caches.parts[ServerModel].state())

    with patch.object(GradientCaches, "finish", finished):
        run = how(path, settings, *forget, **more)
    (weights,) = found
    return run, weights


@pytest.mark.parametrize("client_sync", ["none", "handoff"])
def test_the_server_forgets_a_client_that_is_gone_as_one_that_is_there(
    client_sync, settings, tmp_path
):
    settings = {**settings, "client_sync": client_sync}
    learn(tmp_path / "gone", settings)
    shutil.copytree(tmp_path / "gone", tmp_path / "there")
    gone = caches(tmp_path / "gone", settings)[f"client {ASKING}"]
    theirs = [step.number for step in gone.steps]
    server = caches(tmp_path / "gone", settings)["server"]
    patterns = {big(one) for number in theirs for one in server.gradients(number).values()}
    patterns.discard(b"")
    shutil.rmtree(tmp_path / "gone" / "clients" / str(ASKING))
    assert found(tmp_path / "gone", patterns) == patterns

    request = (f"client:{ASKING}", ASKING)
    dropped, left = noted(
        tmp_path / "gone", settings, unlearn, request, nodes=NUM_CLIENTS - 1, drop=True
    )
    _, asked = noted(tmp_path / "there", settings, unlearn, request, nodes=NUM_CLIENTS)
    assert left.keys() == asked.keys()
    assert all(torch.equal(left[name], asked[name]) for name in left)
    assert found(tmp_path / "gone", patterns) == set()
    told = last(dropped)["approximations"]
    assert sum("gradients are gone" in line for line in told) == (client_sync == "handoff")

    # Who is left can be forgotten later, past the turns of who is gone.
    later = unlearn(tmp_path / "gone", settings, ("class:3", 0), nodes=NUM_CLIENTS - 1)
    assert str(ASKING) not in last(later)["accuracy"]["per_client"]


def last(run):
    return run.phases[-1]


@pytest.mark.parametrize("part", ["chain", "local"])
def test_lost_gradients_are_rounded_to_the_nearest_of_others(part, settings, tmp_path):
    """The client's part beside the recursion written down once more, over all clients' caches."""
    settings = {
        **settings,
        "client_sync": "handoff",
        "lost_gradients": "nearest",
        **({"client_part": "local", "shares": "whole"} if part == "local" else {}),
    }
    path = tmp_path / "state"
    learn(path, settings)
    kept = caches(path, settings)
    steps = {step.number: step for step in kept["server"].steps}
    c = coefficients_of([*steps.values()], settings["momentum"])
    left = {
        step.number: kept[f"client {step.client}"].gradients(step.number)
        for step in steps.values()
        if step.client != ASKING
    }
    start = TensorStore(folders(path)["client 0"]).load("segment")
    wanted = {name: torch.zeros_like(one) for name, one in start.items()}
    chains = (
        [left]
        if part == "chain"
        else [
            {number: one for number, one in left.items() if steps[number].client == client}
            for client in (0, 2)
        ]
    )
    for chain in chains:
        u = {name: torch.zeros_like(one) for name, one in start.items()}
        for number in sorted(chain):
            lost = [
                step
                for step in steps
                if step not in left and min(left, key=lambda one: (abs(one - step), one)) == number
            ]
            for name, one in chain[number].items():
                u[name] += sum(c[step] for step in lost if step < number) * one
                if one.square().sum() > 1e-20:
                    u[name] -= (one * u[name]).sum() / one.square().sum() * one
                u[name] += sum(c[step] for step in lost if step > number) * one
        wanted = {name: wanted[name] + u[name] for name in wanted}
    assert max(one.abs().max() for one in wanted.values()) > 1e-4

    projected, keep = [], GradientProjectionClient.keep_weights

    def noticed(client, weights):
        projected.append(weights)
        keep(client, weights)

    shutil.rmtree(path / "clients" / str(ASKING))
    with patch.object(GradientProjectionClient, "keep_weights", noticed):
        unlearn(path, settings, (f"client:{ASKING}", ASKING), nodes=NUM_CLIENTS - 1, drop=True)
    # Before they trained on, all of them.
    for weights in projected[: NUM_CLIENTS - 1]:
        close({name: weights[name] - start[name] for name in wanted}, wanted)
    # What is left in the caches is a training that ends where the segment is, as ever.
    unlearn(path, settings, ("class:3", 0), nodes=NUM_CLIENTS - 1)


def test_a_client_cannot_be_dropped_where_nothing_of_it_is_kept(settings, tmp_path):
    settings = {**settings, "unlearning": "retrain"}
    path = tmp_path / "state"
    learn(path, settings)
    before = tree(path)
    with pytest.raises(UserError, match=r"--drop-client=.* allowed: with strategy=splitwiper, or"):
        unlearn(path, settings, (f"client:{ASKING}", ASKING), drop=True)
    assert tree(path) == before
