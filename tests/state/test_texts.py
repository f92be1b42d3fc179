"""Texts, weeks later: forgotten exactly, from the pretrained network that training began with."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.bert import pretrained_bert
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.loading import load, load_all
from split_unlearning.simulations.data.tokenizer import Tokens
from split_unlearning.simulations.preparation import deal
from split_unlearning.simulations.state.state_dir import open_state
from tests.local_grid import LocalRun, dealt
from tests.refusals import refusal
from tests.state.bench import ask, certificate, digests_noted, learn, unlearn
from tests.texts import SHORT, edit, few_texts, small_bert

pytest.importorskip("transformers", reason="the extra [text] is not installed")


def pretrained_digest(config):
    return Tokens.of(config.own).pretrained_digest()


def later():
    """What another process does not remember."""
    for remembered in (load, load_all, deal, pretrained_bert):
        remembered.cache_clear()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    texts, pretrained = few_texts(folder / "topics.npz"), small_bert(folder / "bert")
    return {**SHORT, "dataset": texts, "pretrained": pretrained, "forget": ""}


@pytest.fixture(scope="module")
def learned(settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("learned") / "state"
    learn(path, settings, num_clients=2)
    return path


def test_a_request_is_exact_and_the_certificate_says_so(settings, learned, tmp_path):
    path = shutil.copytree(learned, tmp_path / "state")
    later()
    unlearn(path, settings, ("class:sport", 1))
    state = open_state(str(path))
    dataset, plan = deal(state.config, 2)
    sport = np.flatnonzero(dataset.y_train == 1)
    kept = plan.train[0], np.setdiff1d(plan.train[1], sport)
    with dealt(dataset, type(plan)(kept, plan.test)):
        assert LocalRun(2, **settings).digests == digests_noted(path)
    later()
    claims = certificate(path, settings, nodes=2)
    assert claims["holds"]
    assert claims["pretrained"] == pretrained_digest(state.config)


@pytest.mark.parametrize(
    "chosen",
    [
        {"slices": 2, "codec": "float16"},
        {"server_slices": 2, "precision": "bfloat16"},
        {"strategy": "splitwiper-plus", "epsilon": 8, "secrets": "drawn"},
        {"strategy": "splitwiper-plus", "copies": "replicate", "expansion": 2},
        {"strategy": "u-shaped"},
        {"strategy": "splitfed", "splitfed_version": 2},
    ],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_whoever_forgets_texts_forgets_them_exactly(settings, chosen, tmp_path):
    path = tmp_path / "state"
    chosen = {**settings, "pretrained": "", **chosen}
    learn(path, chosen, num_clients=2)
    before = digests_noted(path)
    alone = chosen.get("strategy", "splitwiper").startswith("splitwiper")
    unlearn(path, chosen, ("samples:0.5@class:sport", 1), nodes=1 if alone else 2)
    assert digests_noted(path)["server"] != before["server"]
    assert certificate(path, chosen, nodes=2)["holds"]


def test_projection_forgets_texts_weeks_later(settings, tmp_path):
    """It gives what it gives within a run."""
    projection = {"strategy": "gradient-projection", "unlearning": "gradient-projection"}
    chosen = {**settings, "pretrained": "", **projection, "momentum": 0.5, "learning_rate": 0.05}
    learn(tmp_path / "state", chosen, num_clients=2)
    unlearn(tmp_path / "state", chosen, ("class:sport", 1), nodes=2)
    at_once = LocalRun(2, **{**chosen, "forget": "class:sport", "forget_client": 1})
    assert digests_noted(tmp_path / "state") == at_once.digests


def other_weights(folder):
    small_bert(folder, seed=1)


def one_more_word(folder):
    small_bert(folder, more_words=["never"])


def another_epsilon(folder):
    edit(folder / "config.json", layer_norm_eps=1e-6)


@pytest.mark.parametrize("change", [other_weights, one_more_word, another_epsilon])
@pytest.mark.parametrize("command", ["unlearn", "verify", "go on"])
def test_another_pretrained_network_is_refused(settings, learned, tmp_path, change, command):
    path = shutil.copytree(learned, tmp_path / "state")
    folder = shutil.copytree(settings["pretrained"], tmp_path / "kept")
    change(Path(settings["pretrained"]))
    later()
    try:
        do = {
            "unlearn": lambda: ask(path, ("class:sport", 1)),
            "verify": lambda: certificate(path, settings, nodes=2),
            "go on": lambda: learn(path, settings, num_clients=2),
        }[command]
        line = refusal(do)
    finally:
        shutil.copytree(folder, settings["pretrained"], dirs_exist_ok=True)
        later()
    assert line.startswith(f"pretrained={settings['pretrained']!r} is not what {path} was trained")


def test_a_tokenizer_that_reads_otherwise_is_refused(settings, learned):
    """Its vocabulary is the same; that capital letters are not read shows in the texts."""
    reading = Path(settings["pretrained"]) / "tokenizer_config.json"
    later()
    open_state(str(learned)).deal()
    try:
        edit(reading, do_lower_case=False)
        later()
        line = refusal(open_state(str(learned)).deal)
    finally:
        edit(reading, do_lower_case=True)
        later()
    assert "the tokens of their words" in line


def test_what_is_not_read_changes_nothing(settings, tmp_path):
    config = RunConfig.from_mapping({"pretrained": settings["pretrained"], "model": "bert"})
    folder = tmp_path / "elsewhere"
    shutil.copytree(settings["pretrained"], folder)
    (folder / "README.md").write_text("About this network.")
    edit(folder / "config.json", transformers_version="5.0.0")
    elsewhere = RunConfig.from_mapping({"pretrained": str(folder), "model": "bert"})
    assert pretrained_digest(elsewhere) == pretrained_digest(config) != ""
    assert pretrained_digest(RunConfig()) == ""


def test_a_pretrained_network_that_has_gone_is_refused(settings, learned):
    folder = Path(settings["pretrained"])
    moved = folder.rename(folder.with_name("moved"))
    later()
    try:
        line = refusal(open_state(str(learned)).deal, error=UserError)
    finally:
        moved.rename(folder)
        later()
    assert line.startswith(f"pretrained={str(folder)!r}")
