"""Runs in which what crosses the cut is rounded: half the bytes, as exact, and as good."""

from dataclasses import replace

import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import Options
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.preparation import deal
from split_unlearning.simulations.state.state_dir import StateDir
from tests.local_grid import LocalRun, dealt
from tests.protocol.test_precision import FORGET, QUICK, scratch
from tests.refusals import refusal
from tests.state.bench import SHORT, certificate, few_digits, learn, unlearn

CODECS = ["float16", "bfloat16"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "chosen",
    [
        {"strategy": "splitwiper", "slices": 2, "server_slices": 2},
        {"strategy": "vanilla", "client_sync": "handoff"},
        {"strategy": "u-shaped"},
        {"strategy": "splitfed"},
    ],
    ids=lambda chosen: chosen["strategy"],
)
def test_forgetting_is_exact_and_bytes_are_half(chosen, codec):
    settings = {**QUICK, **chosen, "seed": 3, "forget": FORGET}
    plain, rounded = LocalRun(3, **settings), LocalRun(3, **settings, codec=codec)
    assert rounded.digests["server"] != plain.digests["server"]
    assert scratch(rounded, **settings, codec=codec).digests == rounded.digests
    for whole, half in zip(plain.phases, rounded.phases, strict=True):
        for one, other in zip(whole["clients"], half["clients"], strict=True):
            assert other["messages"] == one["messages"]
            # What weights, labels, ids and the names of things take is not halved.
            assert other["bytes_up"] < 0.7 * one["bytes_up"] or not one["bytes_up"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("strategy", ["splitwiper", "splitwiper-plus", "vanilla", "u-shaped"])
def test_a_run_gives_the_same_digests_again_whatever_is_in_flight_and_in_chunks(strategy, codec):
    settings = {**QUICK, "seed": 3, "strategy": strategy, "forget": "class:2", "codec": codec}
    first = LocalRun(3, **settings)
    again = LocalRun(3, in_flight=3, upload_chunk_mb=0.01, **settings)
    for one, other in zip(first.phases, again.phases, strict=True):
        assert one["digests"] == other["digests"]
        assert one["accuracy"] == other["accuracy"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped", "splitfed"])
def test_teachers_are_asked_in_it_too(strategy, codec):
    settings = {"strategy": strategy, "unlearning": "distillation", "server_epochs": 1}
    dataset, plan = deal(RunConfig.from_mapping({"distribution": "iid", "seed": 3}), 2)
    thinned = replace(plan, train=tuple(ids[::4] for ids in plan.train))
    chosen = {**QUICK, **settings, "distillation_epochs": 1, "seed": 3, "codec": codec}
    with dealt(dataset, thinned):
        run = LocalRun(2, forget="class:2", **chosen)
    assert run.digests["server"] != run.phases[0]["digests"]["server"]
    assert all(value.isfinite().all() for value in run.server_state.values())


@pytest.mark.parametrize(
    ("strategy", "epochs"), [("splitwiper", 5), pytest.param("vanilla", 8, marks=pytest.mark.slow)]
)
def test_digits_are_learned_and_forgotten_as_well(strategy, epochs):
    def retained(codec):
        run = LocalRun(2, strategy=strategy, pretrain_epochs=3, server_epochs=epochs, codec=codec)
        assert run.phases[1]["accuracy"]["unlearned"] == 0
        return run.phases[1]["accuracy"]["retained"]

    exact = retained("float32")
    assert exact > 0.85
    assert min(map(retained, CODECS)) > exact - 0.05


def test_what_a_state_dir_forgot_verifies_and_float32_cannot_go_on(tmp_path):
    digits = few_digits(tmp_path / "digits.npz")
    settings = {**SHORT, "dataset": digits, "strategy": "splitwiper", "codec": "float16"}
    path = tmp_path / "state"
    learn(path, settings)
    unlearn(path, settings, ("class:2", 1))
    assert certificate(path, settings)["holds"]
    state = StateDir(path)
    exact = replace(state.config, own=Options({**state.config.own, "codec": "float32"}))
    message = refusal(state.check_same, exact, error=UserError)
    assert message.startswith("codec='float32' is not possible; allowed: 'float16', with")


@pytest.mark.parametrize("codec", ["int8", "half"])
def test_a_wrong_codec_is_refused_in_one_line(codec):
    message = refusal(RunConfig.from_mapping, {"codec": codec}, error=UserError)
    assert message == f"codec={codec!r} is not possible; allowed: float32, float16, bfloat16"
