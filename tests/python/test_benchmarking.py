"""A benchmark, and the results of a folder, as functions of Python."""

import pytest
import tomli_w

import split_unlearning as su
from split_unlearning.simulations import local_engine
from split_unlearning.simulations.launching.launch import Outcome
from tests.refusals import refusal

SPEC = {
    "clients": 2,
    "run": {"server-epochs": 1, "pretrain-epochs": 1, "samples": 200, "distribution": "iid"},
    "grid": [{"strategy": ["splitwiper", "vanilla"], "learning-rate": 0.1}],
}


@pytest.fixture(scope="module")
def grid():
    return su.benchmark(SPEC, pretrain_epochs=2)


def test_every_run_is_a_row_a_phase(grid):
    assert grid.failures == ()
    frame = grid.to_frame()
    assert frame["strategy"].tolist() == ["splitwiper"] * 2 + ["vanilla"] * 2
    assert frame["request"].dropna().tolist() == ["class:2"] * 2
    assert len(grid.to_frame("client")) == 2 * 2 * 2


def test_the_report_is_written_when_it_is_asked_for(grid):
    assert "vanilla" in grid.report.read_text()


def test_it_leaves_nothing_on_disk_unless_it_is_told_to(grid, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one = {**SPEC, "grid": [{"strategy": "splitwiper"}]}
    held = su.benchmark(one)
    assert held.folder.parent == tmp_path
    del held
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_read_and_a_folder_gone_on_with(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps({**SPEC, "grid": [{"seed": [0, 1]}]}))
    first = su.benchmark(path, out=tmp_path / "out")
    assert "--resume" in refusal(su.benchmark, path, out=tmp_path / "out", error=su.UserError)
    again = su.benchmark(path, out=str(tmp_path / "out"), resume=True)
    assert again.to_frame().equals(first.to_frame())
    assert again.to_frame()["seed"].tolist() == [0, 0, 1, 1]


def test_what_differs_between_runs_is_a_column(tmp_path):
    short = {"clients": 2, "forget": "", "server_epochs": 1, "pretrain_epochs": 1, "samples": 200}
    for rate in (0.1, 0.2):
        su.run(**short, learning_rate=rate, out=tmp_path / f"rate-{rate}")
    frame = su.read_results(tmp_path)
    assert frame.columns[:2].tolist() == ["run", "learning-rate"]
    assert frame["learning-rate"].tolist() == [0.1, 0.2]
    assert frame["run"].tolist() == ["rate-0.1", "rate-0.2"]
    assert su.read_results(tmp_path / "rate-0.1")["run"].tolist() == ["."]


def test_a_folder_without_results_and_a_broken_one_are_refused(tmp_path):
    assert "a folder with a result.json" in refusal(su.read_results, tmp_path, error=su.UserError)
    (tmp_path / "result.json").write_text("{}")
    assert "result.json" in refusal(su.read_results, tmp_path, error=su.UserError)


def test_an_engine_that_does_not_start_is_said(monkeypatch):
    monkeypatch.setattr(
        local_engine, "run_here", lambda *_, **__: Outcome(False, "no room", "the log")
    )
    with pytest.raises(su.RunFailedError, match=r"^no room$") as raised:
        su.benchmark(SPEC)
    assert raised.value.log == "the log"


@pytest.mark.parametrize(
    ("spec", "given", "said"),
    [
        (SPEC, {"engine": "spark"}, "engine='spark' is not possible; allowed: local, ray"),
        (SPEC, {"scale": "tiny"}, "--scale='tiny' is not possible"),
        (SPEC, {"server_epoch": 2}, "server-epoch"),
        (SPEC, {"resume": True}, "resume=True is not possible"),
        ({**SPEC, "grids": []}, {}, "spec: a spec knows no grids; did you mean grid?"),
        ("no-such", {}, "SPEC='no-such' is not possible"),
    ],
)
def test_what_is_not_possible_touches_nothing(spec, given, said, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert said in refusal(su.benchmark, spec, **given, error=su.UserError)
    assert list(tmp_path.iterdir()) == []
