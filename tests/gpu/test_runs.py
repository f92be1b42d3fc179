"""Runs with Flower and Ray whose clients and server are on a GPU."""

import json
import os

import pytest

from tests.flower.test_end_to_end import settings, split_unlearning
from tests.local_grid import LocalRun

pytestmark = pytest.mark.flower

STRATEGIES = ["splitwiper", "splitwiper-plus", "vanilla", "u-shaped", "splitfed"]
METHODS = ["fine-tune", "gradient-ascent", "distillation"]
# Four clients at a time take four fifths of a GPU.
CPUS = max(1, (os.cpu_count() or 1) // 4)
SHARED = ("--client-gpus", "0.2", "--client-cpus", str(CPUS))


def result_of(folder):
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def learned_alike(result, local):
    """Accuracies are those of a CPU but for what rounding makes of them."""
    for phase, other in zip(result["phases"], local.phases, strict=True):
        for who in ("unlearned", "retained"):
            assert abs(phase["accuracy"][who] - other["accuracy"][who]) < 0.1


@pytest.fixture(scope="module")
def cells(gpu, tmp_path_factory):
    """Results of every strategy and kind of method, each twice: many clients in flight, and one."""
    folder = tmp_path_factory.mktemp("gpu")
    spec = folder / "spec.toml"
    spec.write_text(
        "clients = 4\n[run]\nforget = 'class:2'\npretrain-epochs = 2\nserver-epochs = 8\n"
        "server-num-gpus = 0.2\n"
        f"[[grid]]\nstrategy = {STRATEGIES!r}\n"
        f"[[grid]]\nstrategy = 'vanilla'\nunlearning = {METHODS!r}\n"
        "[[grid]]\nstrategy = 'vanilla'\nclient-sync = 'handoff'\nprecision = 'bfloat16'\n"
        "[[grid]]\nstrategy = 'gradient-projection'\nclient-sync = 'handoff'\n"
        "unlearning = 'gradient-projection'\n",
        encoding="utf-8",
    )
    found = []
    for cpus in (CPUS, os.cpu_count() or 1):
        out = folder / f"out-{cpus}-{len(found)}"
        how = ("--client-gpus", "0.2", "--client-cpus", str(cpus))
        done = split_unlearning("benchmark", str(spec), "--out", str(out), *how, folder=folder)
        assert done.returncode == 0, done.stderr
        results = [result_of(path.parent) for path in sorted(out.glob("cells/*/result.json"))]
        found.append({json.dumps(one["config"] | {"out": ""}): one for one in results})
    return found


def test_the_digests_do_not_depend_on_how_many_clients_are_in_flight(cells):
    many, one = cells
    assert many.keys() == one.keys()
    assert len(many) == len(STRATEGIES) + len(METHODS) + 2
    for key, result in many.items():
        phases = zip(result["phases"], one[key]["phases"], strict=True)
        assert all(phase["digests"] == other["digests"] for phase, other in phases), key


def test_both_sides_were_on_the_gpu_and_learned(cells, gpu):
    for result in cells[0].values():
        assert result["environment"]["server_device"] == gpu
        assert result["environment"]["client_devices"] == [gpu]
        assert result["phases"][0]["accuracy"]["retained"] > 0.3, result["config"]


@pytest.mark.parametrize("strategy", ["splitwiper", "vanilla"])
def test_they_learn_and_forget_as_on_a_cpu(cells, strategy):
    (result,) = (
        one
        for one in cells[0].values()
        if (one["strategy"], one["unlearning"], one["config"]["precision"])
        == (strategy, "retrain", "float32")
    )
    keys = {"forget": "class:2", "pretrain_epochs": 2, "server_epochs": 8}
    learned_alike(result, LocalRun(4, strategy=strategy, **keys))


def test_only_who_asked_for_a_gpu_has_one(gpu, tmp_path):
    words = settings(server_num_gpus=1, pretrain_epochs=1, server_epochs=1)
    done = split_unlearning("run", "--clients", "3", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = result_of(tmp_path / "results" / "latest")["environment"]
    assert (environment["server_device"], environment["client_devices"]) == (gpu, ["cpu"])
    words = settings(pretrain_epochs=1, server_epochs=1)
    done = split_unlearning("run", "--clients", "3", *SHARED, *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = result_of(tmp_path / "results" / "latest")["environment"]
    assert (environment["server_device"], environment["client_devices"]) == ("cpu", [gpu])


def test_what_was_forgotten_later_is_proven_on_the_gpu(gpu, tmp_path):
    state = tmp_path / "state"
    keys = settings(state_dir=state, server_num_gpus=0.2, server_epochs=4, forget="", slices=2)
    for command in (
        ("run", "--clients", "4", *keys),
        ("unlearn", str(state), "--forget", "class:2", "--client", "0"),
        ("verify", str(state)),
    ):
        done = split_unlearning(*command, *SHARED, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    machine = json.loads((state / "certificate.json").read_text(encoding="utf-8"))["environment"]
    assert (machine["server_device"], machine["client_devices"]) == (gpu, [gpu])
    assert gpu in done.stdout
