"""Requests that come weeks later, and verification, as functions of Python."""

import shutil

import pytest
import torch

import split_unlearning as su
from split_unlearning.simulations import local_engine
from split_unlearning.simulations.launching.launch import Outcome
from split_unlearning.simulations.state.agenda import tasks_of
from split_unlearning.simulations.state.state_dir import open_state
from tests.refusals import refusal
from tests.state.bench import few_digits


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    data = few_digits(folder / "digits.npz")
    settings = {"server_epochs": 2, "pretrain_epochs": 2, "distribution": "iid", "dataset": data}
    su.run(clients=3, forget="", state_dir=folder / "kept", **settings)
    return folder / "kept"


@pytest.fixture
def kept(learned, tmp_path):
    return shutil.copytree(learned, tmp_path / "kept")


def test_what_is_asked_later_is_forgotten_and_verified(kept, tmp_path):
    run = su.unlearn(kept, "class:1", 2, out=tmp_path / "out")
    assert run.folder == tmp_path / "out"
    assert [(phase.request, phase.samples > 0) for phase in run.phases[1:]] == [("class:1", True)]
    assert run.accuracy.loc[1, "request"] == "class:1"
    several = su.unlearn(kept, ["class:0", "class:2"], client=[0, 1])
    assert several.phases[-1].request == "class:0; class:2"
    certificate = su.verify(kept)
    assert certificate.holds
    assert "holds; 4 segments" in str(certificate)
    assert certificate.claims["journal"] == open_state(str(kept)).journal.head


def test_the_model_of_a_state_is_the_one_that_it_keeps(kept, tmp_path):
    first = su.load(kept)
    run = su.unlearn(kept, "class:1", out=tmp_path / "out")
    accuracy = run.phases[-1].accuracy.per_client
    # The others need not have been there.
    assert accuracy[0] is not None
    for client, share in accuracy.items():
        x, y = run.samples(client)
        hits = (run.model(client)(torch.from_numpy(x)).argmax(dim=1).numpy() == y).sum()
        assert share is None or abs(hits - share * len(y)) <= 1
    said = refusal(run.model, 0, phase=0, error=su.UserError)
    assert "phase=0 is not possible; allowed: -1 (a state-dir keeps the last model" in said
    assert "has changed since" in refusal(first.model, 0, error=su.UserError)
    dropped = su.unlearn(kept, drop_client=True, client=1)
    assert "allowed: one that is there: 0, 2" in refusal(dropped.model, 1, error=su.UserError)


def test_a_copy_of_its_result_holds_nothing_of_the_state(kept, tmp_path):
    run = su.unlearn(kept, drop_client=True, client=1)
    run.save(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["result.json"]


def test_what_was_forgotten_before_is_not_forgotten_again(kept):
    first = su.unlearn(kept, "class:1")
    with pytest.warns(UserWarning, match="class:1 of client 0 was asked for at .* and is done"):
        second = su.unlearn(kept, "class:1")
    assert second.result == first.result


def test_a_run_that_fails_leaves_the_request_to_the_same_call(kept, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "run_here", lambda *_, **__: Outcome(False, "no room", "log"))
        with pytest.raises(su.RunFailedError, match=r"^no room; .*the same call finishes it$"):
            su.unlearn(kept, "class:1")
    assert len(su.unlearn(kept).phases) == 2


def test_a_request_that_cannot_be_finished_is_taken_back(kept, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "run_here", lambda *_, **__: Outcome(False, "no room", "log"))
        with pytest.raises(su.RunFailedError):
            su.unlearn(kept, "class:1")
    assert su.withdraw(kept) == ["class:1"]
    assert len(tasks_of(open_state(str(kept)).journal)) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"forget": "class:1", "engine": "spark"}, "engine='spark' is not possible"),
        ({"forget": "class:1", "client": 9}, "is not possible"),
        ({"forget": "class:1", "client": [0, 1]}, "--client='0 1' is not possible"),
        ({"forget": "class:1", "client": [0.0]}, "client=0.0 is not possible"),
        ({"forget": "class:7"}, "forget='class:7'"),
        ({"forget": None}, "forget=None is not possible; allowed: a text"),
        ({"forget": [3]}, "forget=[3] is not possible; allowed: a text"),
        ({"drop_client": True}, "--drop-client='no --client' is not possible"),
        ({}, "has nothing left to do"),
    ],
)
def test_what_is_not_possible_changes_nothing(kept, given, said):
    before = (kept / "journal.jsonl").read_bytes()
    assert said in refusal(su.unlearn, kept, **given, error=su.UserError)
    assert (kept / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("call", [su.unlearn, su.verify, su.withdraw])
def test_where_there_is_no_state_there_is_nothing_to_do(call, tmp_path):
    assert "holds no state" in refusal(call, tmp_path / "none", error=su.UserError)
    assert list(tmp_path.iterdir()) == []
