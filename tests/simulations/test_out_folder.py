"""A result is in a run's folder once it is complete, and no other one is lost before."""

import pytest

from split_unlearning.evaluation.outputs import FILE
from split_unlearning.foundations.errors import UserError
from split_unlearning.reporting.result import Result
from split_unlearning.simulations.session.result import ResultBuilder
from tests.local_grid import LocalRun
from tests.refusals import refusal
from tests.state.bench import ask

SHORT = {"samples": 60, "pretrain_epochs": 1, "server_epochs": 1, "distribution": "iid"}


@pytest.fixture
def interrupted(monkeypatch):
    """Have the next run end before its last phase is taken down."""
    note_phase = ResultBuilder.note_phase

    def note_or_end(builder, task, *more):
        if task.asked:
            raise KeyboardInterrupt
        note_phase(builder, task, *more)

    def run(**settings):
        with monkeypatch.context() as patched:
            patched.setattr(ResultBuilder, "note_phase", note_or_end)
            with pytest.raises(KeyboardInterrupt):
                LocalRun(2, **SHORT, **settings)

    return run


def phases(folder):
    return [phase.request for phase in Result.read(folder / "result.json").phases]


def test_an_earlier_result_stays_until_there_is_a_complete_one(tmp_path, interrupted):
    gives = {"audit": True, "keep_models": True}
    first = LocalRun(2, **SHORT, **gives, forget="", out=str(tmp_path)).result
    (model,) = (tmp_path / "models").iterdir()
    before = model.read_bytes()
    assert "--overwrite" in refusal(LocalRun, 2, **SHORT, out=str(tmp_path), error=UserError)
    again = {"out": str(tmp_path), "overwrite": True}
    interrupted(**again, **gives, seed=1)
    assert model.read_bytes() == before
    assert Result.read(tmp_path / "result.json").to_dict() == first
    assert (tmp_path / FILE).exists()
    LocalRun(2, **SHORT, **again)
    assert phases(tmp_path) == [None, "class:2"]
    # Outputs and models are of the run that the result is of.
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_run_that_was_cut_off_leaves_no_result(tmp_path, interrupted):
    interrupted(out=str(tmp_path), audit=True)
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / FILE).exists()


def test_a_run_that_goes_on_writes_to_the_folder_that_it_wrote_to(tmp_path, interrupted):
    kept = {"state_dir": str(tmp_path / "kept"), "out": str(tmp_path / "out")}
    interrupted(**kept)
    LocalRun(2, **SHORT, **kept)
    assert phases(tmp_path / "out") == [None, "class:2"]
    ask(tmp_path / "kept", ("class:3", 1))
    LocalRun(1, **SHORT, **kept)
    assert phases(tmp_path / "out") == [None, "class:2", "class:3"]
    # Of another run, it is not replaced.
    LocalRun(2, **SHORT, out=str(tmp_path / "other"))
    ask(tmp_path / "kept", ("class:4", 1))
    elsewhere = {**kept, "out": str(tmp_path / "other")}
    assert "--overwrite" in refusal(LocalRun, 1, **SHORT, **elsewhere, error=UserError)
    LocalRun(1, **SHORT, **elsewhere, overwrite=True)
    assert phases(tmp_path / "other") == [None, "class:2", "class:3", "class:4"]
