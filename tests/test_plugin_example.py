"""The plug-in of examples/plugin does all it does through the door, and from outside."""

import ast
import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import split_unlearning.plugin
from split_unlearning import Batch, SplitStrategy
from split_unlearning.simulations.cli import app
from split_unlearning.simulations.config import RunConfig, parse_setting
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.launching import launch
from split_unlearning.simulations.preparation import deal
from tests.configs import config_of
from tests.flower.test_end_to_end import ROOT, settings
from tests.flower.test_end_to_end import split_unlearning as command_line
from tests.local_grid import LocalRun, dealt

PLUGIN = ROOT / "examples" / "plugin"
FROZEN = {"strategy": "frozen-features", "server_epochs": 8}
RELABEL = {"unlearning": "relabel", "server_epochs": 1, "pretrain_epochs": 1, "fine_tune_epochs": 1}
RELABEL_NAMES = ("relabel", "frozen_features:Relabel")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the package, as a stranger's, where Python finds it while these tests run."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    done = subprocess.run([*command, str(PLUGIN)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        importlib.invalidate_caches()
        yield folder
        sys.modules.pop("frozen_features", None)
    importlib.invalidate_caches()


def refused(*arguments):
    """Return the one line with which the command line refuses, before anything starts."""

    def start(*_, **__):
        raise AssertionError("something was started")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(launch, "run_app", start)
        done = CliRunner().invoke(app, ["run", *arguments])
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    return line


def test_it_is_short_and_imports_nothing_behind_the_door():
    text = (PLUGIN / "frozen_features.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    nodes = list(ast.walk(ast.parse(text)))
    modules = {alias.name for one in nodes if isinstance(one, ast.Import) for alias in one.names}
    modules |= {one.module for one in nodes if isinstance(one, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} <= {
        *("split_unlearning", "torch", "numpy"),
        *sys.stdlib_module_names,
    }
    of_the_door = [one for one in nodes if isinstance(one, ast.Attribute)]
    used = {one.attr for one in of_the_door if getattr(one.value, "id", "") == "su"}
    assert used
    assert used <= set(split_unlearning.plugin.__all__)


def test_list_shows_what_is_installed(installed):
    shown = CliRunner().invoke(app, ["list"])
    assert shown.exit_code == 0
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines() if line.strip()]
    assert ["relabel", told("Relabel")] in lines
    assert ["frozen-features", told("FrozenFeatures")] in lines
    table = shown.stdout.partition("Which strategy can forget how\n")[2].splitlines()
    names = table[0].split()
    marks = {line.split()[0]: line.split()[1:] for line in table[1 : table.index("")]}
    forgets = {
        strategy: {name for name, mark in zip(names, row, strict=True) if mark == "x"}
        for strategy, row in marks.items()
    }
    assert forgets["frozen-features"] == {"retrain"}
    for strategy in ("splitfed", "splitwiper", "u-shaped", "vanilla"):
        assert "relabel" in forgets[strategy]


def told(name):
    """Return the first line of what one of the plug-in's classes says of itself."""
    text = getattr(importlib.import_module("frozen_features"), name).__doc__
    return text.partition("\n")[0]


def test_the_strategy_runs_by_name_and_by_dotted_path_and_takes_its_option(installed):
    clipped = LocalRun(3, **FROZEN, options="clip=0.5")
    again = LocalRun(
        3, **{**FROZEN, "strategy": "frozen_features:FrozenFeatures"}, options="clip=0.5"
    )
    wide = LocalRun(3, **FROZEN, options="clip=1e9")
    module = Path(sys.modules[type(clipped.strategy).__module__].__file__)
    assert module.is_relative_to(installed)
    assert clipped.digests == again.digests
    # Only what leaves the client is clipped.
    assert clipped.digests["clients"] == wide.digests["clients"]
    assert clipped.digests["server"] != wide.digests["server"]
    sent = np.concatenate([smashed.ravel() for smashed in uploads(clipped)])
    assert np.abs(sent).max() == 0.5
    assert np.abs(np.concatenate([one.ravel() for one in uploads(wide)])).max() > 0.5


def uploads(run):
    """Return the smashed data of every answer that holds some, of training and test splits."""
    arrays = []
    for _, _, answer in run.grid.sent:
        fields = answer.config_records.get("fitres.metrics", {})
        if str(fields.get("tensors", "")).startswith("smashed"):
            first = next(iter(answer.array_records["fitres.parameters"].values()))
            arrays.append(first.numpy())
    assert len(arrays) > 1
    return arrays


@pytest.mark.parametrize(
    ("forget", "asked"),
    [
        ("class:2", [(0, "leave-out"), (0, "draw")]),
        (
            "samples:0.5@class:2;client:2",
            [(0, "leave-out"), (0, "draw"), (2, "leave-out"), (2, "draw")],
        ),
    ],
)
def test_the_strategy_forgets_exactly_and_asks_nobody_else(installed, forget, asked):
    run = LocalRun(4, **FROZEN, options="clip=0.5", forget=forget, upload_chunk_mb=1000.0)
    assert run.instructions("unlearn") == asked
    assert run.digests == trained_without_what(run).digests
    assert run.digests["server"] != run.phases[0]["digests"]["server"]
    if forget == "class:2":
        before, after = (phase["accuracy"] for phase in run.phases)
        assert before["unlearned"] > 0.5
        assert after["unlearned"] == 0
        assert after["retained"] > 0.5


def trained_without_what(run):
    """Train from scratch on a data set in which the forgotten samples are not even pictures."""
    data, plan = run.prepared.dataset, run.prepared.plan
    gone = np.concatenate([ids for one in run.prepared.forgettings for ids in one.samples.values()])
    images, labels = data.x_train.copy(), data.y_train.copy()
    images[gone], labels[gone] = 0, 0
    blank = dataclasses.replace(data, x_train=images, y_train=labels)
    kept = Plan(tuple(np.setdiff1d(ids, gone) for ids in plan.train), plan.test)
    with dealt(blank, kept):
        return LocalRun(
            plan.num_clients, **{**run.prepared.config.as_mapping(), "forget": "", "out": ""}
        )


def test_the_server_answers_a_frame_of_the_strategy_and_keeps_what_came_with_it(installed):
    part = importlib.import_module("frozen_features").Sums
    answer, moved = part.sum, []

    @wraps(answer)
    def noted(sums, client, tensors, value):
        reply = answer(sums, client, tensors, value)
        moved.append((client, float(reply["moved"])))
        return reply

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(part, "sum", noted)
        run = LocalRun(3, **FROZEN, forget="class:2;client:1")
    assert sorted(moved[:3]) == [(0, 0.0), (1, 0.0), (2, 0.0)]
    forgetting = dict(moved[3:])
    assert sorted(forgetting) == sorted(
        {client for client, action in run.instructions("unlearn") if action == "draw"}
    )
    assert all(far > 0 for far in forgetting.values())


@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped", "splitfed", "splitwiper"])
def test_the_method_runs_with_every_strategy_of_ours(installed, strategy):
    dataset, plan = deal(config_of(distribution="iid"), 2)
    few = Plan(tuple(ids[::5] for ids in plan.train), plan.test)
    named = {"strategy": strategy, **RELABEL}
    with dealt(dataset, few):
        run, again = (LocalRun(2, **{**named, "unlearning": name}) for name in RELABEL_NAMES)
        other = LocalRun(2, **named, options="relabel-epochs=1")
    assert again.digests == run.digests
    assert other.phases[0]["digests"] == run.phases[0]["digests"]
    assert other.digests != run.digests


def test_the_method_makes_the_forgotten_samples_wrong(installed):
    """With nothing retained by anybody in its way, a label that was learned is gone."""
    chosen = {"strategy": "vanilla", "server_epochs": 6, "fine_tune_epochs": 1}
    run = LocalRun(2, **chosen, unlearning="relabel", options="relabel-epochs=2")
    before, after = (phase["accuracy"] for phase in run.phases)
    assert before["unlearned"] > 0.5
    assert after["unlearned"] < 0.1


def test_a_wrong_label_is_never_the_right_one_and_follows_from_the_id(installed):
    wrong = importlib.import_module("frozen_features").WrongLabels()
    ids, labels = np.arange(40), torch.arange(40) % 4

    def targets(rows):
        batch = Batch(ids[rows], labels[rows], torch.ones(len(ids[rows]), dtype=torch.bool), 4)
        return wrong.targets(batch, None)["labels"]

    drawn = targets(slice(None))
    assert set(drawn.tolist()) == {0, 1, 2, 3}
    assert not (drawn == labels).any()
    assert torch.equal(drawn[7:9], targets(slice(7, 9)))
    assert wrong.sends == {"labels"}


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "x", "", "nan", "inf"])
def test_a_bad_option_of_the_method_is_refused_before_anything_starts(installed, value):
    setting = f"relabel-epochs={value}"
    line = refused("--set", "unlearning=relabel", "--set", f"options={setting}")
    assert line == (
        f"error: options={setting!r} is not possible; allowed: relabel-epochs, an integer > 0"
    )


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan"])
def test_a_bad_option_of_the_strategy_is_refused_before_anything_starts(installed, value):
    line = refused("--strategy", "frozen-features", "--set", f"options=clip={value}")
    assert line == f"error: options='clip={value}' is not possible; allowed: clip, a number > 0"


def test_a_misspelt_option_is_refused_with_those_that_there_are(installed):
    line = refused("--strategy", "frozen-features", "--set", "options=clp=2")
    assert line == "error: options='clp=2' is not possible; allowed: clip, a number > 0"


def test_options_that_nobody_reads_and_methods_that_do_not_fit_are_refused(installed):
    assert "options='clip=1'" in refused("--strategy", "vanilla", "--set", "options=clip=1")
    line = refused("--strategy", "frozen-features", "--set", "unlearning=relabel")
    assert line.startswith("error: unlearning='relabel' is not possible; allowed: retrain (")


# What tests/models/test_registry.py and tests/unlearning/test_methods.py say of the registries, a
# user is told in one line; and what a strategy says of its client is looked at, too.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package", "does not import (ModuleNotFoundError: No module named"),
        (
            "class Strategy:\n    pass",
            "does not fit: a strategy is a subclass of ",
        ),
        (
            "from split_unlearning import SplitStrategy\n"
            "class Strategy(SplitStrategy):\n"
            "    client = 'strange:Client'\n"
            "    def learn(self): yield\n",
            "does not fit: it does not define unlearn",
        ),
        (
            "from split_unlearning import Vanilla\n"
            "class Strategy(Vanilla):\n"
            "    server_parts = (dict,)\n",
            "does not fit: its server_parts are no tuple of subclasses of ServerPart",
        ),
    ],
)
def test_a_strategy_that_cannot_be_used_is_refused_in_one_line(tmp_path, monkeypatch, text, said):
    (tmp_path / "strange.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strange", raising=False)
    line = refused("--strategy", "strange:Strategy")
    sys.modules.pop("strange", None)
    assert line.startswith("error: strategy='strange:Strategy' ")
    assert said in line


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ("no_such_package:Client", "client='no_such_package:Client' does not import ("),
        ("frozen_features:Relabel", "client='frozen_features:Relabel' does not fit: a client is a"),
    ],
)
def test_a_client_that_cannot_be_used_is_refused_in_one_line(installed, monkeypatch, client, said):
    strategy = importlib.import_module("frozen_features").FrozenFeatures
    assert issubclass(strategy, SplitStrategy)
    monkeypatch.setattr(strategy, "client", client)
    assert said in refused("--strategy", "frozen-features")


def test_what_the_pages_show_is_what_there_is(installed):
    page = (ROOT / "docs" / "plugin.md").read_text(encoding="utf-8")
    (registered,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    package = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))
    shown = tomllib.loads(registered)["project"]["entry-points"]
    assert shown == package["project"]["entry-points"]
    for name in re.findall(r"--strategy (\S+:\w+)", page):
        config_of(strategy=name).check()
    readme = (PLUGIN / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^split-unlearning run (.*)$", readme, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        chosen = dict(parse_setting(text) for text in re.findall(r"--set (\S+)", command))
        chosen["strategy"] = re.findall(r"--strategy (\S+)", command)[0]
        RunConfig.from_mapping(chosen).check()


@pytest.mark.slow
@pytest.mark.flower
def test_it_runs_in_flower_by_name(installed, tmp_path):
    chosen = {"server_epochs": 2, "options": "clip=0.5"}
    done = command_line(
        *("run", "--clients", "2", "--strategy", "frozen-features"),
        *settings(**chosen),
        folder=tmp_path,
        PYTHONPATH=os.pathsep.join([str(installed), str(ROOT)]),
    )
    assert done.returncode == 0, done.stderr
    assert "frozen-features, retrain" in done.stdout
    result = json.loads((tmp_path / "results" / "latest" / "result.json").read_text())
    assert result["config"]["strategy"] == "frozen-features"
    local = LocalRun(2, strategy="frozen-features", **chosen)
    assert [phase["digests"] for phase in result["phases"]] == [
        phase["digests"] for phase in local.phases
    ]
