"""Clients that are away while others forget: nobody waits for them, and nothing of them is lost."""

import shutil

import pytest
import torch

from split_unlearning.clients.gradient_projection import GradientProjectionClient
from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.state.agenda import tasks_of
from split_unlearning.simulations.state.state_dir import open_state
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.sequential import coefficients_of
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.state.bench import (
    NUM_CLIENTS,
    PROJECTED,
    digests_noted,
    folders,
    forgotten,
    learn,
    stopped,
    tree,
    unlearn,
)

AWAY, ASKING, OTHER = 2, 1, 0
HANDOFF = {"client_sync": "handoff"}
REQUEST = ("class:2", ASKING)


@pytest.fixture(scope="module")
def settings(digits):
    return {**PROJECTED, "dataset": digits}


def forget_without(path, settings, *requests, away=AWAY):
    """Forget while one client is away: it has no node."""
    return unlearn(path, settings, *(requests or [REQUEST]), nodes=NUM_CLIENTS - 1, absent=[away])


def segment(path, side):
    return TensorStore(folders(path)[side]).load("segment")


def client_tree(path, client):
    return tree(path / "clients" / str(client))


@pytest.mark.parametrize("more", [{}, HANDOFF], ids=["own segments", "handoff"])
def test_the_others_forget_and_what_it_holds_is_as_it_was(settings, more, tmp_path):
    settings = {**settings, **more}
    path = tmp_path / "state"
    learned = learn(path, settings)
    before = client_tree(path, AWAY)
    run = forget_without(path, settings)
    assert client_tree(path, AWAY) == before
    told = run.phases[-1]
    assert told["absent"] == [f"client {AWAY} was away"]
    assert sum(line.startswith(f"client {AWAY} ") for line in told["approximations"]) == 2
    assert told["accuracy"]["per_client"][str(AWAY)] is None
    assert told["accuracy"]["per_client"][str(OTHER)] is not None
    costs = {one["client"]: one for one in told["clients"]}
    assert costs[AWAY]["messages"] == costs[AWAY]["evaluation"]["messages"] == 0
    changed = {
        client
        for client, now in digests_noted(path)["clients"].items()
        if now != learned.digests["clients"][client]
    }
    assert changed == {str(ASKING), str(OTHER)}
    assert forgotten(path)[ASKING]


def test_the_client_segment_goes_past_its_steps(settings, tmp_path):
    """The client's part beside the recursion written down once more, without its gradients."""
    settings = {**settings, **HANDOFF, "shares": "whole"}
    path = tmp_path / "state"
    learn(path, settings)
    known = TensorStore(folders(path)["server"]).load("gradient-run")
    run = bytes(known["name"].tolist()).decode()
    kept = {side: GradientCache(folder, run) for side, folder in folders(path).items()}
    steps = kept["server"].steps
    c = coefficients_of(steps, settings["momentum"])
    batches = {step.number: set(step.ids.tolist()) for step in kept[f"client {ASKING}"].steps}
    gradients = {
        step.number: kept[f"client {step.client}"].gradients(step.number)
        for step in steps
        if step.client != AWAY
    }
    learned = segment(path, f"client {AWAY}")
    request = ("samples:0.1@class:2", ASKING)
    moved = []

    with pytest.MonkeyPatch.context() as patched:
        watch_applied(patched, moved)
        forget_without(path, settings, request)
    gone = set(forgotten(path)[ASKING])
    u = {name: torch.zeros_like(one) for name, one in learned.items()}
    for number, gradient in sorted(gradients.items()):
        for name, one in gradient.items():
            if gone & batches.get(number, set()):
                u[name] += c[number] * one
            elif one.square().sum() > 1e-20:
                u[name] -= (one * u[name]).sum() / one.square().sum() * one
    assert max(one.abs().max() for one in u.values()) > 1e-4
    assert len(moved) == NUM_CLIENTS - 1
    for weights in moved:
        for name, one in weights.items():
            torch.testing.assert_close(one - learned[name], u[name], atol=2e-5, rtol=1e-4)


def watch_applied(patched, moved):
    """Note the segment of each client as the projection leaves it, before anybody trains on."""
    apply = GradientProjectionClient.apply

    def applied(client, message):
        answer = apply(client, message)
        moved.append(client.kept_weights())
        return answer

    applied.is_action = True
    patched.setattr(GradientProjectionClient, "apply", applied)


def test_back_again_it_goes_on_with_the_segment_of_the_others(settings, tmp_path):
    settings = {**settings, **HANDOFF}
    path = tmp_path / "state"
    learn(path, settings)
    first = forget_without(path, settings)
    stale = segment(path, f"client {AWAY}")
    waiting = TensorStore(folders(path)["server"]).load("client-segment")
    now = segment(path, f"client {ASKING}")
    assert all(torch.equal(waiting[f"segment/{name}"], now[name]) for name in now)
    assert not any(torch.equal(stale[name], now[name]) for name in now)
    moved = []
    with pytest.MonkeyPatch.context() as patched:
        watch_applied(patched, moved)
        # It comes back to ask, while another is away who has had the segment all along.
        second = forget_without(path, settings, ("class:1", AWAY), away=OTHER)
    assert len(moved) == NUM_CLIENTS - 1
    assert all(torch.equal(moved[0][name], moved[1][name]) for name in now)
    assert second.phases[-1]["absent"] == [f"client {OTHER} was away"]
    third = unlearn(path, settings, ("class:3", OTHER), nodes=NUM_CLIENTS)
    assert len(set(third.digests["clients"].values())) == 1
    assert third.phases[-1]["absent"] == []
    assert TensorStore(folders(path)["server"]).load("client-segment") is None
    assert len({str(run.digests) for run in (first, second, third)}) == 3


def test_with_segments_of_their_own_the_projection_is_the_same(settings, tmp_path):
    """Who keeps a segment of its own is needed by nobody but for training on."""
    path = tmp_path / "state"
    learn(path, settings)
    shutil.copytree(path, tmp_path / "all")
    found = {}
    for place, nodes, absent in ((path, NUM_CLIENTS - 1, [AWAY]), (tmp_path / "all", 3, [])):
        moved = []
        with pytest.MonkeyPatch.context() as patched:
            watch_applied(patched, moved)
            unlearn(place, settings, REQUEST, nodes=nodes, absent=absent)
        found[place] = moved
    for one, other in zip(found[path], found[tmp_path / "all"], strict=False):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_dropped_client_while_another_is_away(settings, tmp_path):
    settings = {**settings, **HANDOFF}
    path = tmp_path / "state"
    learn(path, settings)
    shutil.rmtree(path / "clients" / str(ASKING))
    before = client_tree(path, AWAY)
    run = unlearn(path, settings, (f"client:{ASKING}", ASKING), nodes=1, drop=True, absent=[AWAY])
    assert client_tree(path, AWAY) == before
    assert run.phases[-1]["absent"] == [f"client {AWAY} was away"]
    later = unlearn(path, settings, ("class:3", OTHER), nodes=2)
    assert later.digests["clients"][str(AWAY)] == later.digests["clients"][str(OTHER)]


def test_what_was_interrupted_goes_on_without_it_too(settings, tmp_path):
    settings = {**settings, **HANDOFF}
    learned, whole, path = tmp_path / "learned", tmp_path / "whole", tmp_path / "path"
    learn(learned, settings)
    shutil.copytree(learned, whole)
    became = forget_without(whole, settings)
    shutil.copytree(learned, path)
    with stopped("prepared"), pytest.raises(KeyboardInterrupt):
        forget_without(path, settings)
    # It is written down who is away; it need not be said again.
    unlearn(path, settings, nodes=NUM_CLIENTS - 1)
    assert digests_noted(path) == became.digests


@pytest.mark.parametrize(
    ("chosen", "absent", "line"),
    [
        ({}, [ASKING], r"--absent=1 .* a client that asks for nothing, of 0, 2"),
        ({}, [0, 7], r"--absent=7 .* a client that asks for nothing, of 0, 2"),
        ({}, [0, 2], r"--forget='client:1' .* something to learn from"),
        ({"unlearning": "retrain"}, [2], r"--absent=2 .* unlearning=gradient-projection"),
        (
            {"strategy": "splitwiper", "unlearning": "retrain"},
            [2],
            r"--absent=2 .* none: only who asks is needed",
        ),
    ],
)
def test_refused_before_anything_is_written(chosen, absent, line, settings, tmp_path):
    path = tmp_path / "state"
    learn(path, {**settings, **chosen})
    before = tree(path)
    request = (f"client:{ASKING}", ASKING) if len(absent) > 1 and 7 not in absent else REQUEST
    with pytest.raises(UserError, match=line):
        unlearn(path, {**settings, **chosen}, request, absent=absent)
    assert tree(path) == before


def test_another_list_of_who_is_away_is_another_request(settings, tmp_path):
    path = tmp_path / "state"
    learn(path, settings)
    with stopped("prepared"), pytest.raises(KeyboardInterrupt):
        forget_without(path, settings)
    with pytest.raises(UserError, match="is not finished"):
        unlearn(path, settings, REQUEST, absent=[OTHER])
    state = open_state(str(path))
    assert [task.absent for task in tasks_of(state.journal)] == [(), (AWAY,)]
    assert all(task.prepared is not None for task in tasks_of(state.journal))
