"""Accuracy while a phase goes on: measured after epochs, and training none the wiser."""

import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.config import RunConfig
from tests.local_grid import LocalRun

EPOCHS = 3
FEW = {"samples": 360, "test_samples": 90}
RUNS = {
    "splitwiper": {"strategy": "splitwiper", "server_slices": 2},
    "splitwiper-plus": {"strategy": "splitwiper-plus"},
    "vanilla": {"strategy": "vanilla", "unlearning": "gradient-ascent", "fine_tune_epochs": 2},
    "vanilla handed on": {"strategy": "vanilla", "client_sync": "handoff", "momentum": 0.5},
    "u-shaped": {"strategy": "u-shaped"},
    "splitfed": {"strategy": "splitfed"},
    "gradient-projection": {
        "strategy": "gradient-projection",
        "unlearning": "gradient-projection",
        "client_sync": "handoff",
    },
}


@pytest.fixture(scope="module", params=RUNS)
def both(request):
    """The same run without and with it."""
    settings = {"server_epochs": EPOCHS, "pretrain_epochs": 1, **FEW, **RUNS[request.param]}
    return LocalRun(2, **settings), LocalRun(2, **settings, score_every=1)


def test_it_changes_nothing_of_what_is_trained(both):
    without, scored = both
    for before, after in zip(without.phases, scored.phases, strict=True):
        assert before["digests"] == after["digests"]
        assert before["accuracy"] == after["accuracy"]
        assert before["by_epoch"] == []


def test_every_epoch_is_there_and_the_last_is_the_end(both):
    _, scored = both
    learn = scored.phases[0]["by_epoch"]
    assert len(learn) >= EPOCHS
    assert [one["epoch"] for one in learn] == list(range(1, len(learn) + 1))
    for phase in scored.phases:
        last = phase["by_epoch"][-1]
        for name in ("unlearned", "retained"):
            assert last[name] == phase["accuracy"][name]


def test_it_costs_nobody_anything_but_in_evaluation(both):
    without, scored = both
    for before, after in zip(without.phases, scored.phases, strict=True):
        for alone, beside in zip(before["clients"], after["clients"], strict=True):
            for cost in ("bytes_up", "bytes_down", "messages"):
                assert alone[cost] == beside[cost]
            assert beside["evaluation"]["messages"] > alone["evaluation"]["messages"]


def test_only_some_epochs_are_measured():
    run = LocalRun(2, server_epochs=5, pretrain_epochs=1, score_every=2, **FEW)
    assert [one["epoch"] for one in run.phases[0]["by_epoch"]] == [2, 4]


def test_a_state_dir_has_none(tmp_path):
    config = RunConfig.from_mapping({"score-every": 1, "state-dir": str(tmp_path / "state")})
    with pytest.raises(UserError, match="score-every=1"):
        config.check()
