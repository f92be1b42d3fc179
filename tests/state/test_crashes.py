"""SIGKILL anywhere: the state is that of before or that of after, and the same command finishes."""

import shutil
from itertools import count

import pytest

from split_unlearning.simulations.state.state_dir import StateDir
from tests.state.bench import certificate, learn, outcome, pieces
from tests.state.crashing import Job, assert_of_one_piece, kept_segments, killed_at_random
from tests.state.forks import Forks

pytestmark = pytest.mark.slow

ONE = [("class:2", 1)]
TWO = [("samples:0.5@class:2", 1), ("client:2", 2)]


@pytest.fixture(scope="module")
def forks():
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def learned(tmp_path_factory, sliced):
    path = tmp_path_factory.mktemp("learned") / "state"
    learn(path, sliced)
    return path


@pytest.fixture(scope="module", params=[ONE, TWO], ids=["one request", "two at once"])
def requests(request):
    return request.param


@pytest.fixture(scope="module")
def forgot(requests, tmp_path_factory, forks, learned, sliced):
    """A state-dir whose requests nothing interrupted, and what the run took."""
    path = tmp_path_factory.mktemp("forgot") / "state"
    shutil.copytree(learned, path)
    became = forks.done("unlearn", path, sliced, *requests)
    assert certificate(path, sliced)["holds"]
    return path, became


def test_killed_at_every_step_of_learning(tmp_path, forks, sliced):
    sliced = {**sliced, "slices": 1, "stable_clients": ""}
    whole = tmp_path / "whole" / "state"
    steps = forks.done("learn", whole, sliced, num_clients=2)["steps"]
    assert steps > 50
    expected, after = outcome(whole), pieces(whole)
    assert certificate(whole, sliced, nodes=2)["holds"]
    for step in range(1, steps + 1):
        path = tmp_path / str(step) / "state"
        assert forks.run("learn", path, sliced, num_clients=2, kill_at=step)["killed"], step
        if path.exists():
            assert_of_one_piece(path, {}, after)
        forks.done("learn", path, sliced, num_clients=2)
        assert outcome(path) == expected, step
        shutil.rmtree(path.parent)


def test_killed_at_every_step_of_forgetting(requests, forgot, tmp_path, forks, learned, sliced):
    whole, became = forgot
    expected, before, after = outcome(whole), pieces(learned), pieces(whole)
    digests = {state: kept_segments(path) for state, path in (("old", learned), ("new", whole))}
    stages = set()
    for step in count(1):
        path = tmp_path / str(step) / "state"
        shutil.copytree(learned, path)
        interrupted = forks.run("unlearn", path, sliced, *requests, kill_at=step)
        if not interrupted["killed"]:
            break
        assert_of_one_piece(path, before, after)
        assert kept_segments(path)["server"] in [state["server"] for state in digests.values()]
        stages.add(tuple(event["event"] for event in StateDir(path).journal.events[5:]))
        forks.done("unlearn", path, sliced, *requests)
        assert outcome(path) == expected, step
        shutil.rmtree(path.parent)
    assert step == became["steps"] + 1
    # At every line of the journal, and between all of them.
    lines = ("received", "started", "prepared", "committed", "measured")
    assert stages == {lines[:length] for length in range(len(lines))}


def test_killed_again_and_again_at_random_moments(
    requests, forgot, tmp_path, forks, learned, sliced
):
    whole, became = forgot
    job = Job("unlearn", sliced, requests, learned)
    hits = killed_at_random(forks, job, whole, tmp_path, became["seconds"], kills=25, seed=0)
    assert sum(hits.values()) == 25


def test_learning_and_forgetting_in_one_go_killed_at_random_moments(tmp_path, forks, sliced):
    settings = {**sliced, "forget": "class:2;client:1"}
    whole = tmp_path / "whole" / "state"
    job = Job("learn", settings)
    seconds = forks.done("learn", whole, settings)["seconds"]
    assert certificate(whole, settings)["holds"]
    hits = killed_at_random(forks, job, whole, tmp_path, seconds, kills=6, seed=0)
    assert sum(hits.values()) == 6
