from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from typer.testing import CliRunner

import split_unlearning
from split_unlearning.models.split import MODELS, TORCHVISION
from split_unlearning.reporting import terminal
from split_unlearning.simulations.benchmark import runner
from split_unlearning.simulations.benchmark.spec import shipped_specs
from split_unlearning.simulations.cli import app
from split_unlearning.simulations.command_line.arguments import check_plan, read_settings
from split_unlearning.simulations.command_line.default_folder import call_latest, new_folder
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.console import FAILURE, PROGRESS
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.data.loaders.registry import DATASETS
from split_unlearning.simulations.data.loading import JOINED
from split_unlearning.simulations.launching import launch
from split_unlearning.simulations.launching.launch import Outcome
from split_unlearning.simulations.state.agenda import tasks_of
from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.strategies.registry import STRATEGIES
from split_unlearning.unlearning.methods import METHODS, Retrain
from tests import made_up
from tests.simulations.test_reception import finish, learned


@dataclass
class Run:
    """Stands in for Flower; notes what it was asked to run."""

    outcome: Outcome = field(default_factory=lambda: Outcome(True, "", "the whole log"))
    result: dict[str, Any] | None = field(default_factory=made_up.result)
    interrupted: bool = False
    meanwhile: Callable[[], object] = lambda: None
    asked: list[tuple[dict[str, Any], int, dict[str, Any]]] = field(default_factory=list)

    def __call__(
        self, settings: Mapping[str, Any], clients: int, *, on_line: Any, **resources: Any
    ) -> Outcome:
        self.asked.append((dict(settings), clients, resources))
        for line in ("noise", f"{PROGRESS}learn", f"{FAILURE}shown once"):
            on_line(line)
        if self.interrupted:
            raise KeyboardInterrupt
        self.meanwhile()
        if self.result is not None:
            # As a run does: a new file takes the place of one that is there.
            beside = Path(settings["out"]) / "result.json.unfinished"
            beside.write_text(json.dumps(self.result))
            beside.replace(beside.with_name("result.json"))
        return self.outcome


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    run = Run()
    monkeypatch.setattr(launch, "run_app", run)
    monkeypatch.setattr(terminal, "render", lambda result: f"tables of {result.strategy}")
    monkeypatch.chdir(tmp_path)
    return run


def _invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_a_run_in_this_process_starts_no_flower(flower, tmp_path):
    short = ["--set", "server-epochs=1", "--set", "pretrain-epochs=1", "--clients", "2"]
    result = _invoke("run", "--engine", "local", "--out", str(tmp_path / "out"), *short)
    assert result.exit_code == 0, result.output
    assert not flower.asked
    assert (tmp_path / "out" / "result.json").exists()
    assert "tables of splitwiper" in result.stdout
    refused = _invoke("run", "--engine", "cloud", "--out", str(tmp_path / "other"))
    assert refused.exit_code == 2
    assert refused.stderr == "error: engine='cloud' is not possible; allowed: local, ray\n"


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--set", f"forget=client:{'1' * 5000}"], "class:NAME, client:N"),
        (["--set", f"forget=class:{'1' * 5000}"], "one of the 10 labels"),
        (["--set", f"stable-clients={'1' * 5000}"], "each client's number once"),
        (["--set", "forget=ids:{pipe}"], "a file of sample ids"),
        (["--set", "benchmark=/nope"], "empty; split-unlearning benchmark NAME"),
        (["--ray-address", "http://127.0.0.1:1"], "where a Ray cluster answers"),
        (["--out", "folder\udcff"], "a path in UTF-8"),
    ],
)
def test_what_nobody_would_type_is_refused_in_one_line(flower, tmp_path, arguments, allowed):
    os.mkfifo(tmp_path / "pipe")
    named = [word.format(pipe=tmp_path / "pipe") for word in arguments]
    with patch.dict(os.environ):
        result = _invoke("run", *named)
    assert result.exit_code == 2
    assert not flower.asked
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert allowed in line


def _write_images(path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(40, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 4
    np.savez(
        path,
        x_train=images,
        y_train=labels,
        x_test=images,
        y_test=labels,
        class_names=np.array(["a", "b", "c", "d"]),
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "forgot=class:2"], "forgot"),
        (["--set", "seed"], "--set"),
        (["--set", "seed=x"], "seed"),
        (["--set", "learning-rate=-1"], "learning-rate"),
        (["--set", "momentum=nan"], "momentum"),
        (["--set", "distribution=even"], "distribution"),
        (["--strategy", "nope"], "strategy"),
        (["--set", "strategy=no.such.module:Class"], "strategy"),
        (["--set", "forget=class:none"], "forget"),
        (["--set", "forget=client:5"], "forget"),
        (["--set", "forget=ids:nowhere"], "forget"),
        (["--set", "dataset=npz:nowhere"], "dataset"),
        (["--set", "out="], "out"),
        (["--out", "file/in/the/way"], "out"),
        (["--out", "results/result.json"], "out"),
        (["--clients", "0"], "--clients"),
        (["--client-cpus", "0"], "--client-cpus"),
        (["--client-gpus", "-1"], "--client-gpus"),
        (["--client-gpus", "nan"], "--client-gpus"),
        (["--client-cpus", "100000"], "--client-cpus"),
        (["--client-gpus", "1000"], "--client-gpus"),
        (["--clients", "2000000"], "num-supernodes"),
        (["--set", "threads=4294967297"], "threads"),
        (["--set", "client-sync=handoff"], "client-sync"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(
    flower: Run, tmp_path: Path, arguments: list[str], named: str
) -> None:
    (tmp_path / "file").touch()
    result = _invoke("run", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {named}=") or f"error: {named} " in line
    assert flower.asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The result of an earlier run in the folder ``there``."""
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "result.json"
    path.write_text("earlier")
    return path


@pytest.mark.parametrize("more", [["--set", "seed=-1", "--overwrite"], []])
def test_what_is_refused_leaves_an_earlier_result_alone(
    flower: Run, earlier: Path, more: list[str]
) -> None:
    assert _invoke("run", "--out", "there", *more).exit_code == 2
    assert earlier.read_text() == "earlier"
    assert flower.asked == []


def test_a_result_is_replaced_by_a_complete_one_if_that_is_asked_for(
    flower: Run, earlier: Path
) -> None:
    asked = ("run", "--out", "there")
    line = _line(_invoke(*asked), 2)
    assert "--overwrite" in line
    flower.meanwhile = lambda: earlier.read_text() == "earlier" or pytest.fail("it is gone")
    done = _invoke(*asked, "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert json.loads(earlier.read_text()) == flower.result
    assert flower.asked[0][0]["overwrite"] is True


@pytest.mark.parametrize("how", ["fails", "is interrupted"])
def test_a_run_that_does_not_end_keeps_the_earlier_result(
    flower: Run, earlier: Path, how: str
) -> None:
    flower.interrupted = how == "is interrupted"
    flower.outcome, flower.result = Outcome(False, "it broke", ""), None
    assert _invoke("run", "--out", "there", "--overwrite").exit_code != 0
    assert earlier.read_text() == "earlier"


def test_a_run_without_out_has_a_folder_of_its_own_and_latest_leads_to_it(
    flower: Run, tmp_path: Path
) -> None:
    _write_images(tmp_path / "my images.npz")
    asked = ["run", "--strategy", "vanilla", "--set", "forget=", "--set", "distribution=iid"]
    for dataset in ("digits", "npz:my images.npz"):
        done = _invoke(*asked, "--set", f"dataset={dataset}")
        assert done.exit_code == 0, done.stderr
    first, second = (Path(settings["out"]) for settings, _, _ in flower.asked)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-\d{6}-vanilla-digits(-\d)?", first.name)
    assert re.fullmatch(r".*-vanilla-my-images", second.name)
    assert (tmp_path / "results" / "latest").resolve() == second
    assert first.parent == second.parent == tmp_path / "results"
    flower.outcome = Outcome(False, "it broke", "")
    _invoke(*asked)
    assert (tmp_path / "results" / "latest").resolve() == second


def test_runs_that_begin_in_the_same_second_do_not_share_a_folder(
    flower: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    def another_begins(config: RunConfig, clients: int) -> str:
        # Its checks ended while ours were under way.
        Path(config.out).mkdir(parents=True)
        return check_plan(config, clients)

    monkeypatch.setattr("split_unlearning.simulations.command_line.run.check_plan", another_begins)
    assert _invoke("run").exit_code == 0
    ((settings, _, _),) = flower.asked
    theirs, ours = sorted((tmp_path / "results").glob("20*"))
    assert ours == Path(settings["out"])
    assert list(theirs.iterdir()) == []


def test_folders_of_one_second_have_names_of_their_own(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config = RunConfig.from_mapping({"strategy": "my.package:Mine", "dataset": "cifar10+npz:/a/b"})
    names = []
    for _ in range(2):
        folder = new_folder(config, datetime(2026, 1, 2, 3, 4, 5))
        folder.mkdir(parents=True)
        names.append(folder.name)
    assert names[0] == "2026-01-02-030405-Mine-cifar10+b"
    assert names[1] == f"{names[0]}-2"


def test_a_text_says_where_the_latest_result_is_where_no_link_can_be(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    call_latest(tmp_path / "new")
    assert (tmp_path / "latest.txt").read_text() == "new\n"
    assert (tmp_path / "latest").is_dir()
    assert not (tmp_path / "latest").is_symlink()


def test_typers_own_bad_arguments_exit_with_2(flower: Run) -> None:
    assert _invoke("run", "--clients", "many").exit_code == 2
    assert _invoke("run", "--nope").exit_code == 2
    assert flower.asked == []


def test_a_ray_cluster_is_joined_by_its_address(
    flower: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert _invoke("run", "--client-gpus", "1000").exit_code == 2
    with patch(
        "split_unlearning.strategies.server.placement.nodes_at", return_value=[(1.0, 1000.0)]
    ):
        result = _invoke("run", "--client-gpus", "1000", "--ray-address", "10.0.0.1:6379")
    assert result.exit_code == 0
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert flower.asked[0][2]["client_gpus"] == 1000


def test_done_prints_progress_and_tables(
    flower: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What another cluster has is not asked of this machine.
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with patch("split_unlearning.strategies.server.placement.nodes_at", return_value=[(4.0, 1.0)]):
        result = _invoke("run", "--clients", "3", "--client-gpus", "0.5", "--strategy", "vanilla")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "learn\n" in result.stdout
    assert "client" in result.stdout
    assert "1442" in result.stdout
    assert "noise" not in result.stdout
    assert "shown once" not in result.stdout
    assert "tables of splitwiper" in result.stdout
    assert "/result.json" in result.stdout
    ((settings, clients, resources),) = flower.asked
    assert clients == 3
    assert resources == {"client_cpus": 1, "client_gpus": 0.5}
    assert settings["strategy"] == "vanilla"
    assert RunConfig.from_mapping(settings).as_mapping() == settings


def test_verbose_prints_all_lines(flower: Run) -> None:
    assert "noise" in _invoke("run", "--verbose").stdout


def test_failed_run_saves_its_log(flower: Run, tmp_path: Path) -> None:
    flower.outcome = Outcome(False, "it broke", "the whole log")
    result = _invoke("run", "--out", "there")
    assert result.exit_code == 1
    log = tmp_path / "there" / "log.txt"
    assert result.stderr == f"error: it broke (log: {log})\n"
    assert log.read_text() == "the whole log"
    assert "tables" not in result.stdout


def test_log_of_an_earlier_failure_does_not_stay(flower: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "log.txt").touch()
    assert _invoke("run", "--out", "there").exit_code == 0
    assert not (tmp_path / "there" / "log.txt").exists()


def test_stale_result_is_not_taken_for_this_runs(flower: Run, earlier: Path) -> None:
    earlier.write_text('{"stale": true}')
    flower.result = None
    result = _invoke("run", "--out", "there", "--overwrite")
    assert result.exit_code == 1
    assert "result.json" in result.stderr
    assert "stale" not in result.stdout


def test_interrupt_is_one_line(flower: Run) -> None:
    flower.interrupted = True
    result = _invoke("run")
    assert result.exit_code == 130
    assert len(result.stderr.splitlines()) == 1


def test_relative_paths_of_joined_data_sets_are_meant_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings(["dataset=npz:a.npz+digits+folder:b"])
    assert settings == {"dataset": f"npz:{tmp_path}/a.npz+digits+folder:{tmp_path}/b"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("bert", "HERE/bert"),
        ("a/bert", "HERE/a/bert"),
        ("./missing", "HERE/missing"),
        ("one/two/three", "HERE/one/two/three"),
        ("~/bert", os.path.expanduser("~/bert")),
        ("missing", "missing"),
        ("google/missing", "google/missing"),
        ("/bert", "/bert"),
        ("", ""),
    ],
)
def test_a_folder_of_weights_is_meant_from_here_and_a_name_of_the_hub_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, read: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    (tmp_path / "a" / "bert").mkdir(parents=True)
    found = read_settings([f"pretrained={given}"])
    assert found == {"pretrained": read.replace("HERE", str(tmp_path))}


def test_relative_paths_are_meant_from_here(flower: Run, tmp_path: Path) -> None:
    _write_images(tmp_path / "images.npz")
    (tmp_path / "ids").write_text("1\n2\n")
    result = _invoke(
        "run", "--set", "dataset=npz:images.npz", "--set", "distribution=iid", "--clients", "2",
        "--set", "forget=class:a; ids:./ids", "--out", "sub/folder",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    settings = flower.asked[0][0]
    assert settings["dataset"] == f"npz:{tmp_path}/images.npz"
    assert settings["forget"] == f"class:a;ids:{tmp_path}/ids"
    assert settings["out"] == f"{tmp_path}/sub/folder"


def test_list_shows_all() -> None:
    result = _invoke("list")
    assert result.exit_code == 0
    names = [*STRATEGIES.names(), *METHODS.names(), *MODELS.names(), *DATASETS.names(), *JOINED]
    names += [*DISTRIBUTIONS.names(), f"{TORCHVISION}NAME", *shipped_specs()]
    keys = list(RunConfig().as_mapping())
    tables = [table.splitlines() for table in result.stdout.strip().split("\n\n")]
    (matrix,) = [table for table in tables if table[0] == "Which strategy can forget how"]
    tables.remove(matrix)
    first_words = [line.split()[0] for table in tables for line in table[1:]]
    assert sorted(first_words) == sorted([*names, *keys])
    assert matrix[1].split() == METHODS.names()
    assert [line.split()[0] for line in matrix[2:]] == STRATEGIES.names()
    assert all(len(line.split()) > 1 for line in result.stdout.splitlines() if line)


def test_the_matrix_marks_what_a_strategy_can_carry_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("split_unlearning.strategies.splitwiper.SplitWiper.methods", (Retrain,))
    monkeypatch.setitem(METHODS._built_in, "absent", "no.such.module:Method")
    lines = _invoke("list").stdout.splitlines()
    title = lines.index("Which strategy can forget how")
    names = lines[title + 1].split()
    (marks,) = [line.split() for line in lines[title:] if line.startswith("  splitwiper ")]
    assert [name for name, mark in zip(names, marks[1:], strict=True) if mark == "x"] == ["retrain"]


def test_list_survives_a_plug_in_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = {**STRATEGIES._built_in, "broken": "no.such.module:Class"}
    monkeypatch.setattr(STRATEGIES, "_built_in", built_in)
    result = _invoke("list")
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("  broken")]
    assert "no.such.module" in line
    assert "splitwiper" in result.stdout


COMMANDS = ["run", "unlearn", "verify", "benchmark", "report", "list"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_no_marks_of_a_markup_and_explains_each_argument(command: str) -> None:
    shown = _invoke(command, "--help").stdout
    assert "\\" not in shown
    usage, _, rest = shown.partition("\n")
    for argument in usage.split("[OPTIONS]")[1].split():
        assert argument.strip("[]") in rest


def test_a_mistyped_command_is_answered_with_one_suggestion() -> None:
    assert _invoke("runn").stderr.count("Did you mean 'run'?") == 1


def test_the_version_is_that_of_the_package() -> None:
    root = Path(split_unlearning.__file__).parents[1]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    shown = _invoke("--version")
    assert (shown.exit_code, shown.stdout) == (0, f"split-unlearning {version}\n")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; "
        "from split_unlearning.simulations.cli import app; "
        "assert CliRunner().invoke(app, ['run', '--help']).exit_code == 0; "
        "heavy = ('torch', 'flwr', 'ray', 'sklearn', 'pandas'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    root = Path(split_unlearning.__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]"


@pytest.fixture
def kept(flower: Run, tmp_path: Path) -> Path:
    """A state-dir that has learned; what Flower would do is only noted."""
    flower.result = None
    state = learned(tmp_path / "kept")
    (state.path / "result.json").write_text(json.dumps(made_up.result()))
    return state.path


def _line(result: Any, code: int) -> str:
    assert result.exit_code == code
    (line,) = result.stderr.strip().splitlines()
    return line


def test_a_request_goes_to_as_many_nodes_as_there_are_clients_that_ask(
    flower: Run, kept: Path
) -> None:
    asked = ["unlearn", "kept", "--forget", "class:2", "--client", "1"]
    flower.meanwhile = lambda: finish(StateDir(kept))
    done = _invoke(*asked, "--forget", "class:3", "--client", "3")
    assert done.exit_code == 0, done.stderr
    ((settings, nodes, _),) = flower.asked
    assert nodes == 2
    assert (settings["state-dir"], settings["out"]) == (str(kept), "")
    task = tasks_of(StateDir(kept).journal)[-1]
    assert sorted(task.counts) == [1, 3]


def test_a_request_that_is_taken_back_before_it_is_carried_out_is_not_called_done(
    flower: Run, kept: Path
) -> None:
    asked = ("unlearn", "kept", "--forget", "class:2", "--client", "1")
    flower.meanwhile = lambda: _invoke("unlearn", "kept", "--withdraw")
    line = _line(_invoke(*asked), 1)
    assert line == (
        "error: 'class:2' is not forgotten: another process took the request back; "
        "allowed: to ask again"
    )
    flower.meanwhile = lambda: None
    assert "'class:2' is not forgotten yet" in _line(_invoke(*asked), 1)
    flower.meanwhile = lambda: finish(StateDir(kept))
    assert _invoke(*asked).exit_code == 0


def test_a_request_whose_run_fails_stands_and_can_be_taken_back(flower: Run, kept: Path) -> None:
    flower.outcome = Outcome(False, "Flower broke", "the log")
    asked = ("unlearn", "kept", "--forget", "class:2", "--client", "1")
    for _ in range(2):
        line = _line(_invoke(*asked), 1)
        assert line.startswith("error: Flower broke (log: ")
        assert "the same command finishes it" in line
    assert [task.number for task in tasks_of(StateDir(kept).journal)] == [0, 1]
    assert "--withdraw" in _line(_invoke("unlearn", "kept", "--forget", "class:4"), 2)
    taken = _invoke("unlearn", "kept", "--withdraw")
    assert (taken.exit_code, "class:2" in taken.stdout) == (0, True)
    assert "nothing left to do" in _line(_invoke("unlearn", "kept"), 2)
    assert len(flower.asked) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["unlearn", "nothing"], "holds no state"),
        (["unlearn", "kept", "--forget", "class:2", "--client", "9"], "client from 0 to 3"),
        (["unlearn", "kept", "--forget", "class:2", "--client", "-1"], "--client"),
        (["unlearn", "kept", "--forget", "class:2", "--client", "1", "--client", "2"], "--client"),
        (["unlearn", "kept", "--forget", "clas:2"], "clas:2"),
        (["unlearn", "kept", "--drop-client"], "--drop-client"),
        (["unlearn", "kept", "--drop-client", "--client", "1", "--forget", "class:2"], "--drop"),
        (["unlearn", "kept", "--withdraw", "--forget", "class:2"], "--withdraw"),
        (["unlearn", "kept", "--withdraw", "--absent", "2"], "--withdraw"),
        (["unlearn", "kept", "--forget", "class:2", "--absent", "2"], "only who asks is needed"),
        (["unlearn", "kept", "--forget", "class:2", "--out", "kept"], "out"),
        (["verify"], "STATE_DIR"),
        (["verify", "nothing"], "holds no state"),
        (["run", "--set", "state-dir=kept"], "distribution='heterogeneous-labels'"),
    ],
)
def test_what_cannot_be_asked_of_a_state_is_one_line(
    flower: Run, kept: Path, arguments: list[str], named: str
) -> None:
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    line = _line(_invoke(*arguments), 2)
    assert line.startswith("error: ")
    assert named in line
    # But for who has it open.
    after = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    assert {path: after[path] for path in after if path.name != "lock"} == {
        path: before[path] for path in before if path.name != "lock"
    }
    assert flower.asked == []


def test_a_benchmark_says_which_cells_nothing_retrains_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "carry_out", lambda *_, **__: "not begun")
    (tmp_path / "spec.toml").write_text('[[grid]]\nstrategy = "vanilla"\nunlearning = "none"\n')
    shown = " ".join(_invoke("benchmark", "spec.toml").stdout.split())
    assert shown.startswith("without a reference: 1 cell, the first is vanilla-none-seed-0-")


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"signature": "00"}'])
def test_what_is_no_certificate_ends_with_3(flower: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "certificate.json"
    file.write_text(text)
    assert str(file.name) in _line(_invoke("verify", "--certificate", str(file)), 3)
    assert flower.asked == []
