"""A run as a function of Python, in this process."""

import subprocess
import sys
from collections import OrderedDict
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import split_unlearning as su
from split_unlearning.simulations import local_engine
from split_unlearning.simulations.command_line.arguments import read_config
from split_unlearning.simulations.console import PROGRESS
from split_unlearning.simulations.launching import launch
from split_unlearning.simulations.launching.launch import Outcome
from split_unlearning.simulations.python import progress
from split_unlearning.simulations.python.handle import Run
from tests.local_grid import LocalRun
from tests.refusals import refusal
from tests.state.bench import few_digits

SHORT = {"server_epochs": 2, "pretrain_epochs": 2, "samples": 400, "distribution": "iid"}


@pytest.fixture(scope="module")
def run():
    return su.run(**SHORT, clients=3, forget="class:3", progress=True)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary files go to, and nothing else."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_the_run_of_the_same_config(run):
    same = LocalRun(3, **SHORT, forget="class:3")
    found = [phase.digests.model_dump(mode="json") for phase in run.phases]
    assert found == [phase["digests"] for phase in same.phases]


def test_accuracy_and_cost_are_tidy_tables(run):
    learn, unlearn = run.accuracy.to_dict("records")
    assert learn["forgotten"] == run.phases[0].accuracy.unlearned
    assert (unlearn["request"], unlearn["forgotten"]) == ("class:3", 0)
    assert len(run.cost) == 2 * 3
    asked = run.cost.query("task == 1 and requested")
    assert asked["client"].tolist() == [0]
    assert asked["bytes_up"].item() == run.phases[1].clients[0].bytes_up
    assert "class:3 by retrain" in repr(run)


def test_draws_of_the_user_go_on_as_if_there_had_been_no_run():
    before = torch.get_rng_state()
    su.run(**SHORT, clients=2, forget="class:3")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("strategy", ["splitwiper", "vanilla"])
def test_how_the_process_computes_changes_no_bit(strategy):
    settings = {**SHORT, "strategy": strategy, "forget": "", "clients": 2}
    plain = su.run(**settings)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            other = su.run(**settings)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.phases[0].digests == plain.phases[0].digests


def test_without_out_nothing_is_left_on_disk(temporary, capsys):
    run = su.run(**SHORT, clients=2, forget="")
    assert run.folder.parent == temporary
    del run
    assert list(temporary.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_run_that_fails_leaves_nothing_on_disk_and_says_why(temporary, monkeypatch):
    failed = Outcome(False, "client 1 failed", "the whole log", RuntimeError("boom"))
    monkeypatch.setattr(local_engine, "run_here", lambda *_, **__: failed)
    with pytest.raises(su.RunFailedError, match=r"^client 1 failed$") as raised:
        su.run(clients=2)
    assert raised.value.log == "the whole log"
    assert raised.value.__cause__ is failed.raised
    assert list(temporary.iterdir()) == []


def test_a_run_is_saved_and_loaded(run, tmp_path):
    run.save(tmp_path / "kept")
    assert su.load(tmp_path / "kept").result == run.result
    assert "a new or an empty folder" in refusal(run.save, tmp_path / "kept", error=su.UserError)
    assert "a folder in which a run" in refusal(su.load, tmp_path / "none", error=su.UserError)
    (tmp_path / "result.json").write_text("{}")
    assert "holds no result" in refusal(su.load, tmp_path, error=su.UserError)


def test_a_result_is_replaced_if_that_is_asked_for(tmp_path):
    out = tmp_path / "new" / "out"
    first = su.run(**SHORT, clients=2, forget="", out=out)
    assert first.folder == out
    assert "overwrite=True" in refusal(su.run, out=str(out), error=su.UserError)
    again = su.run(**SHORT, clients=2, forget="", out=out, seed=np.int64(1), overwrite=True)
    assert again.result.config["seed"] == 1
    assert Run.load(out).result == again.result


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "spark"}, "engine='spark' is not possible; allowed: local, ray"),
        ({"clients": 0}, "--clients=0 is not possible; allowed: an integer >= 1"),
        ({"clients": "3"}, "--clients='3' is not possible; allowed: an integer >= 1"),
        ({"client_cpus": 2}, "client_cpus=2 is not possible; allowed: 1"),
        ({"client_gpus": "a"}, "--client-gpus='a' is not possible; allowed: 0 <= x <= 1"),
        ({"client_gpus": -1}, "--client-gpus=-1 is not possible"),
        ({"engine": "ray", "client_cpus": "2"}, "--client-cpus='2' is not possible"),
        ({"serverepochs": 3}, "serverepochs=3 is not a run-config key; did you mean server-epochs"),
        ({"server_epochs": 0}, "server-epochs=0 is not possible; allowed: an integer >= 1"),
        ({"model": "cn"}, "model='cn' is not possible"),
        ({"forget": ["class:2", "client:9"]}, "forget='client:9' is not possible"),
        ({"options": "x=1"}, "options='x=1' is not possible"),
        ({"verify": True, "state_dir": "s"}, "verify=True is not possible"),
        ({"out": "/proc/none"}, "out='/proc/none' is not possible"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line_before_anything_is_touched(
    given, said, temporary, monkeypatch
):
    monkeypatch.chdir(temporary)
    assert said in refusal(su.run, **given, error=su.UserError)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("wanted", "terminal"), [(True, True), (True, False), (False, True)])
def test_a_terminal_shows_how_far_it_is(wanted, terminal, monkeypatch):
    sink = StringIO()
    console = Console(file=sink, force_terminal=terminal, width=80)
    monkeypatch.setattr(progress, "Console", lambda: console)
    with progress.shown(wanted) as on_line:
        on_line("noise")
        on_line(f"{PROGRESS}epoch 2 of 3")
    assert ("epoch 2 of 3" in sink.getvalue()) is (wanted and terminal)
    assert "noise" not in sink.getvalue()


def test_several_clients_that_ask_are_a_list():
    several = su.run(**SHORT, clients=3, forget="class:3", forget_client=[0, 2])
    asking = [client.client for client in several.phases[1].clients if client.requested]
    assert asking == [0, 2]
    assert several.result.config["forget-client"] == "0,2"


def test_a_class_stands_for_its_path():
    run = su.run(**SHORT, clients=2, forget="", strategy=su.Vanilla)
    assert run.result.strategy == "split_unlearning.strategies.vanilla:Vanilla"
    local = type("Local", (su.Vanilla,), {"__module__": "__main__"})
    said = refusal(su.run, strategy=local, engine="ray", error=su.UserError)
    assert "one in a file of its own" in said


def net(num_classes):
    """A network of one's own."""
    return NETS[-1](num_classes)


def narrow(labels):
    return nn.Sequential(OrderedDict(a=nn.Flatten(), b=nn.Linear(64, 4), c=nn.Linear(4, labels)))


def wide(labels):
    return nn.Sequential(OrderedDict(a=nn.Flatten(), b=nn.Linear(64, 8), c=nn.Linear(8, labels)))


NETS = [narrow]


def test_what_changes_between_two_runs_is_read_again(tmp_path):
    name = few_digits(tmp_path / "few.npz")
    settings = {**SHORT, "clients": 2, "forget": "", "dataset": name, "samples": 0}
    settings |= {"strategy": "vanilla"}
    first = su.run(**settings, model=net, cut="b")
    few_digits(tmp_path / "few.npz", train=30)
    NETS.append(wide)
    second = su.run(**settings, model=net, cut="b")
    assert sum(map(sum, first.result.distribution.train)) == 4 * 24
    assert sum(map(sum, second.result.distribution.train)) == 4 * 30
    assert next(second.model(0).server.parameters()).shape[1] == 8


def test_ray_is_started_as_the_command_line_starts_it(monkeypatch, tmp_path, run):
    asked = []

    def started(settings, clients, *, on_line, **resources):
        asked.append((settings, clients, resources))
        run.save(tmp_path / "there")
        return Outcome(True, "", "")

    monkeypatch.setattr(launch, "run_app", started)
    su.run(engine="ray", clients=3, seed=4, out=tmp_path / "there")
    config = read_config(["seed=4", "keep-models=true"], None, str(tmp_path / "there"))
    assert asked == [(config.as_mapping(), 3, {"client_cpus": 1, "client_gpus": 0})]


@pytest.mark.slow
@pytest.mark.flower
def test_the_engines_give_the_same_digests(run):
    ray = su.run(**SHORT, clients=3, forget="class:3", engine="ray")
    assert [one.digests for one in ray.phases] == [one.digests for one in run.phases]
    x, _ = run.samples(2)
    for phase in (0, 1):
        outputs = [one.model(2, phase)(torch.from_numpy(x)) for one in (run, ray)]
        assert torch.equal(*outputs)


def test_the_package_is_imported_without_pytorch_and_flower():
    code = "import sys, split_unlearning; print({'torch', 'flwr', 'pandas'} & {*sys.modules})"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
    assert {"run", "load", "SplitStrategy"} <= {*dir(su)}
