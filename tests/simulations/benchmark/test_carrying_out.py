"""Cells are run one after the other, what fails is written down, and nothing is done twice."""

import json
from dataclasses import replace

import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.benchmark import runner
from split_unlearning.simulations.benchmark.cell import Cell, read_cell
from split_unlearning.simulations.benchmark.cells import carry_out_cells, planned_cells
from split_unlearning.simulations.benchmark.runner import failures, lay_out, unreferenced
from split_unlearning.simulations.benchmark.spec import Spec
from split_unlearning.simulations.console import PROGRESS
from split_unlearning.simulations.launching.launch import Outcome
from tests.refusals import refusal


def a_spec(*seeds):
    cells = [Cell(2, {"seed": seed}, {"strategy": "splitwiper"}) for seed in seeds]
    return Spec("a", "A", "full", [], [], "", ["strategy"], cells, [])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "benchmark"


def statuses(folder):
    return [(one.seed, one.status) for one in planned_cells(folder)]


class Runs:
    """Stands in for the runs; some end as they are told to."""

    def __init__(self, **endings):
        self.endings = {int(seed.removeprefix("seed_")): how for seed, how in endings.items()}
        self.run = []

    def __call__(self, config, envelope):
        self.run.append(config.seed)
        assert envelope.settings == config.as_mapping()
        assert config.out.endswith(envelope.name)
        ending = self.endings.get(config.seed)
        if ending is not None:
            raise ending


def test_each_is_run_once_in_its_own_folder(folder):
    lay_out(a_spec(0, 1), folder, False, "command")
    runs = Runs()
    carry_out_cells(folder, runs)
    carry_out_cells(folder, runs)
    assert runs.run == [0, 1]
    assert statuses(folder) == [(0, "done"), (1, "done")]


def test_cells_that_were_run_before_meet_the_reference_that_a_spec_brings(folder):
    tuned = Cell(2, {"unlearning": "none"}, {"unlearning": "none"})
    spec = replace(a_spec(), cells=[tuned])
    lay_out(spec, folder, False, "command")
    assert [cell.id for cell in unreferenced(planned_cells(folder))] == [tuned.id]
    carry_out_cells(folder, lambda *_: None)
    retrained = Cell(2, {}, {"unlearning": "retrain"})
    lay_out(replace(spec, cells=[tuned, retrained]), folder, True, "command")
    assert [(cell.status, cell.reference) for cell in planned_cells(folder)] == [
        ("done", retrained.id),
        ("planned", retrained.id),
    ]
    assert unreferenced(planned_cells(folder)) == []


def test_one_that_is_impossible_does_not_stop_the_others(folder):
    lay_out(a_spec(0, 1, 2), folder, False, "command")
    runs = Runs(seed_1=UserError("not\nthis one"))
    carry_out_cells(folder, runs)
    assert runs.run == [0, 1, 2]
    assert statuses(folder) == [(0, "done"), (1, "failed"), (2, "done")]
    (line,) = failures(folder)
    assert line.endswith("not this one")


def test_one_that_fails_otherwise_ends_the_run_and_is_written_down(folder):
    lay_out(a_spec(0, 1, 2), folder, False, "command")
    with pytest.raises(RuntimeError):
        carry_out_cells(folder, Runs(seed_1=RuntimeError("a client failed")))
    assert statuses(folder) == [(0, "done"), (1, "failed"), (2, "planned")]
    assert planned_cells(folder)[1].error == "a client failed"


def test_one_that_was_cut_off_is_not_taken_for_done(folder):
    lay_out(a_spec(0, 1), folder, False, "command")
    with pytest.raises(KeyboardInterrupt):
        carry_out_cells(folder, Runs(seed_1=KeyboardInterrupt()))
    assert statuses(folder) == [(0, "done"), (1, "running")]


def started(folder, *starts):
    """Return an engine that runs the app in this process; each start is given its runs.

    What ends a start ends it as a process ends.
    """
    waiting = list(starts)

    def engine(settings, clients, *, on_line):
        assert settings == {"benchmark": str(folder)}
        runs = waiting.pop(0)
        error = ""
        try:
            carry_out_cells(folder, runs)
        except RuntimeError as raised:
            error = str(raised)
        except KeyboardInterrupt:
            error = "something killed it"
        on_line(f"{PROGRESS}news")
        return Outcome(not error, error, "log\n")

    return engine


def carry_out(folder, engine):
    told = []
    error = runner.carry_out(folder, engine, on_line=lambda _: None, on_progress=told.append)
    return error, told


def test_a_run_that_went_down_is_started_again_with_what_is_left(folder):
    lay_out(a_spec(0, 1, 2, 3), folder, False, "command")
    runs = [Runs(seed_1=RuntimeError("lost")), Runs(seed_2=KeyboardInterrupt()), Runs()]
    error, told = carry_out(folder, started(folder, *runs))
    assert error == ""
    assert [one.run for one in runs] == [[0, 1], [2], [3]]
    assert [(one.seed, one.status) for one in planned_cells(folder)] == [
        (0, "done"),
        (1, "failed"),
        (2, "failed"),
        (3, "done"),
    ]
    assert [one.error for one in planned_cells(folder)] == ["", "lost", "something killed it", ""]
    assert [one.ended for one in told] == [1, 2, 3, 4]
    assert told[-1].seconds_left == 0
    assert "lost" in told[1].text
    assert (folder / "log.txt").read_text() == "log\nlog\n"


def test_where_nothing_starts_it_ends_with_the_reason(folder):
    lay_out(a_spec(0, 1), folder, False, "command")
    error, told = carry_out(folder, lambda *_, **__: Outcome(False, "no SuperLink", ""))
    assert error == "no SuperLink"
    assert told == []
    assert statuses(folder) == [(0, "planned"), (1, "planned")]


def test_going_on_redoes_what_failed_and_what_was_cut_off_but_nothing_else(folder):
    lay_out(a_spec(0, 1, 2), folder, False, "command")
    with pytest.raises(KeyboardInterrupt):
        carry_out_cells(folder, Runs(seed_0=UserError("no"), seed_2=KeyboardInterrupt()))
    lay_out(a_spec(0, 1, 2, 3), folder, True, "command")
    again = Runs()
    assert carry_out(folder, started(folder, again))[0] == ""
    assert again.run == [0, 2, 3]
    assert failures(folder) == []


def test_what_is_there_is_not_overwritten(folder):
    lay_out(a_spec(0), folder, False, "command")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    line = refusal(lay_out, a_spec(1), folder, False, "command", error=UserError)
    assert "--resume" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "letter").write_text("dear")
    for resume in (False, True):
        line = refusal(lay_out, a_spec(0), tmp_path, resume, "command", error=UserError)
        assert line.startswith("--out=")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_version": 2}', "\0"])
def test_a_damaged_cell_is_one_line(folder, text):
    (cell,) = lay_out(a_spec(0), folder, False, "command")
    path = cell.folder(folder) / "cell.json"
    path.write_text(text)
    assert str(path) in refusal(read_cell, path.parent, error=UserError)


def test_a_cell_is_read_back_as_it_was_written(folder):
    (cell,) = lay_out(a_spec(0), folder, False, "command")
    assert read_cell(cell.folder(folder)) == cell
    described = json.loads((folder / "benchmark.json").read_text())
    assert described["cells"] == [cell.id]
    assert described["command"] == "command"
