"""Scalars for TensorBoard: what TensorBoard itself reads of them is what was measured."""

import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from typer.testing import CliRunner

from split_unlearning.reporting.benchmark import read_benchmark
from split_unlearning.simulations.cli import app
from tests.reporting.synthetic import Bench, client, membership, metrics, phase

EPOCHS = [
    {"epoch": 1, "unlearned": 0.5, "retained": 0.25},
    {"epoch": 2, "unlearned": None, "retained": 0.75},
]
BOTH = {"cifar10": 0.5, "mnist": 0.75}


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    asked = [client(0, True, seconds=1.5, up=64), client(1, up=2), client(2, up=4)]
    told = metrics(membership=membership(0.5, 0.6), divergence={"forgotten": 0.25})
    bench.cell(
        phase(by_epoch=EPOCHS),
        phase(1, forgotten=0.125, clients=asked, per_task=BOTH),
        metrics=told,
    )
    bench.cell(phase(), strategy="vanilla")
    bench.describe({"strategy": "u-shaped"}, 0, status="failed", error="no memory")
    return bench


def report(bench, *options):
    done = CliRunner().invoke(app, ["report", str(bench.folder), *options])
    return done.exit_code, done.output.splitlines()


def read(folder):
    """What TensorBoard finds: values by tag and step."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def test_tensorboard_reads_what_was_measured(bench):
    assert report(bench, "--tensorboard")[0] == 0
    cells = read_benchmark(bench.folder).cells
    runs = bench.folder / "tensorboard"
    assert {run.name for run in runs.iterdir()} == {cell.id for cell in cells}
    found = read(runs / cells[0].id)
    assert found["learning: accuracy by epoch/forgotten"] == {1: 0.5}
    assert found["learning: accuracy by epoch/retained"] == {1: 0.25, 2: 0.75}
    assert found["accuracy/forgotten"] == {0: 1.0, 1: 0.125}
    assert found["accuracy, by data set/mnist"] == {1: 0.75}
    assert found["cost, a client that asks/bytes up"][1] == 64
    assert found["cost, another client/bytes up"][1] == 3
    assert found["distance from the retrained model/forgotten"] == {1: 0.25}
    assert found["membership after/hit rate"] == {1: 0.5}


def test_a_second_time_replaces_the_first_and_without_it_nothing_is_written(bench):
    assert report(bench)[0] == 0
    assert not (bench.folder / "tensorboard").exists()
    for _ in range(2):
        assert report(bench, "--tensorboard")[0] == 0
    for run in (bench.folder / "tensorboard").iterdir():
        assert len(list(run.iterdir())) == 1


@pytest.mark.parametrize("command", ["report", "benchmark"])
def test_without_the_package_one_line_names_what_to_install(bench, monkeypatch, command):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "split_unlearning.reporting.scalars.find_spec",
        lambda name: None if name == "tensorboard" else there(name),
    )
    where = [str(bench.folder)] if command == "report" else ["quick", "--out", str(bench.folder)]
    done = CliRunner().invoke(app, [command, *where, "--tensorboard"])
    assert done.exit_code == 2
    (line,) = done.output.strip().splitlines()
    assert "which comes with split-unlearning[tensorboard]" in line
    assert not (bench.folder / "report.html").exists()
