"""Runs whose server segment computes in bfloat16: as exact as in float32, and as good."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import Options
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.preparation import deal, prepare
from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.unlearning.exactness import digest
from tests.local_grid import LocalRun, dealt
from tests.refusals import refusal
from tests.state.bench import SHORT, certificate, few_digits, learn, unlearn

HALF = {"precision": "bfloat16", "seed": 3}
QUICK = {
    "samples": 480,
    "test_samples": 120,
    "pretrain_epochs": 1,
    "server_epochs": 2,
    "batch_size": 64,
    "distribution": "iid",
}
FORGET = "class:2;samples:0.5@class:3"


def scratch(run, **settings):
    """Train without what a run forgot, under the same plan."""
    prepared = run.prepared
    gone = np.concatenate([ids for one in prepared.forgettings for ids in one.samples.values()])
    left = tuple(np.setdiff1d(held, gone) for held in prepared.plan.train)
    with dealt(prepared.dataset, replace(prepared.plan, train=left)):
        return LocalRun(prepared.plan.num_clients, **{**settings, "forget": ""})


@pytest.mark.parametrize(
    "chosen",
    [
        {"strategy": "splitwiper"},
        {"strategy": "splitwiper", "slices": 2, "server_slices": 2},
        {"strategy": "vanilla", "client_sync": "handoff"},
        {"strategy": "u-shaped"},
        {"strategy": "splitfed"},
        {"strategy": "gradient-projection"},
    ],
    ids=lambda chosen: "-".join(map(str, chosen.values())),
)
def test_forgetting_is_exact(chosen):
    settings = {**HALF, **QUICK, **chosen, "forget": FORGET}
    run = LocalRun(3, **settings)
    assert run.phases[0]["digests"]["server"] != run.digests["server"]
    assert scratch(run, **settings).digests == run.digests


@pytest.mark.parametrize("strategy", ["splitwiper", "vanilla"])
def test_a_run_gives_the_same_digests_again_whatever_is_in_flight_and_in_chunks(strategy):
    settings = {**HALF, **QUICK, "strategy": strategy, "forget": "class:2"}
    first = LocalRun(3, **settings)
    again = LocalRun(3, in_flight=3, upload_chunk_mb=0.01, **settings)
    for one, other in zip(first.phases, again.phases, strict=True):
        assert one["digests"] == other["digests"]
        assert one["accuracy"] == other["accuracy"]
    exact = LocalRun(3, **{**settings, "precision": "float32"})
    assert exact.digests["server"] != first.digests["server"]
    if strategy == "splitwiper":
        # What clients compute is no different.
        assert exact.digests["clients"] == first.digests["clients"]


@pytest.mark.parametrize("method", ["fine-tune", "gradient-ascent", "distillation"])
@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped", "splitfed", "splitwiper"])
def test_every_staged_method_goes_through_and_repeats(strategy, method):
    settings = {**HALF, **QUICK, "strategy": strategy, "unlearning": method, "server_epochs": 1}
    epochs = {"ascent_epochs": 1} if method == "gradient-ascent" else {}
    if method == "distillation":
        epochs = {"distillation_epochs": 1}
    else:
        epochs["fine_tune_epochs"] = 1
    dataset, plan = deal(RunConfig.from_mapping({"distribution": "iid", "seed": 3}), 2)
    thinned = replace(plan, train=tuple(ids[::4] for ids in plan.train))
    with dealt(dataset, thinned):
        runs = [LocalRun(2, forget="class:2", **settings, **epochs) for _ in range(2)]
    assert runs[0].digests == runs[1].digests
    assert runs[0].digests["server"] != runs[0].phases[0]["digests"]["server"]
    assert all(value.isfinite().all() for value in runs[0].server_state.values())


def test_digits_are_learned_and_forgotten_as_well_as_in_float32():
    found = {
        precision: LocalRun(2, pretrain_epochs=3, server_epochs=8, precision=precision)
        for precision in ("float32", "bfloat16")
    }
    for run in found.values():
        assert run.phases[1]["accuracy"]["unlearned"] == 0
    exact, rounded = (run.phases[1]["accuracy"]["retained"] for run in found.values())
    assert exact > 0.9
    assert rounded > exact - 0.05


def test_the_result_says_how_it_was_computed_and_weights_are_float32():
    run = LocalRun(2, strategy="splitwiper", forget="", **HALF, **QUICK)
    environment = run.result["environment"]
    assert (environment["precision"], environment["threads"]) == ("bfloat16", 1)
    assert {value.dtype for value in run.server_state.values()} == {torch.float32}
    assert digest(run.server_state) == run.digests["server"]
    fresh = build_segment("server", "cnn", (1, 8, 8), 10, derive_seed(3, "server-segment"))
    assert {name: value.shape for name, value in run.server_state.items()} == {
        name: value.shape for name, value in fresh.state_dict().items()
    }


@pytest.mark.parametrize("strategy", ["splitwiper", "splitfed"])
def test_what_a_state_dir_forgot_verifies_and_float32_cannot_go_on(tmp_path, strategy):
    digits = few_digits(tmp_path / "digits.npz")
    settings = {**SHORT, **HALF, "dataset": digits, "strategy": strategy}
    path = tmp_path / "state"
    learn(path, settings)
    nodes = None if strategy == "splitwiper" else 3
    unlearn(path, settings, ("class:2", 1), nodes=nodes)
    found = certificate(path, settings)
    assert found["holds"]
    assert found["environment"]["precision"] == "bfloat16"
    state = StateDir(path)
    exact = replace(state.config, own=Options({**state.config.own, "precision": "float32"}))
    message = refusal(state.check_same, exact, error=UserError)
    assert message.startswith("precision='float32' is not possible; allowed: 'bfloat16', with")


def test_a_wrong_precision_is_refused_in_one_line():
    message = refusal(RunConfig.from_mapping, {"precision": "half"}, error=UserError)
    assert message == "precision='half' is not possible; allowed: float32, bfloat16"


def test_a_model_is_tried_before_anything_starts(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "split_unlearning.simulations.preparation.check_computes", lambda *what: asked.append(what)
    )
    prepare(RunConfig.from_mapping({"precision": "bfloat16", "strategy": "u-shaped"}), 2)
    ((precision, part, *_),) = asked
    assert (precision, part) == ("bfloat16", "trunk")
