"""Reading the folder of a benchmark: what is there, what failed, what is no such folder."""

import json

import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.reporting.benchmark import read_benchmark
from tests.refusals import refusal
from tests.reporting.synthetic import Bench, membership, metrics, phase


def refused(folder):
    return refusal(read_benchmark, folder, error=UserError)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench")


def test_cells_have_what_their_files_say(bench):
    name = bench.cell(
        phase(), phase(1, "class:cat", forgotten=0.25), seed=3, strategy="vanilla", server_epochs=5
    )
    (cell,) = read_benchmark(bench.folder).cells
    assert (cell.id, cell.seed, cell.clients) == (name, 3, 2)
    assert cell.coordinates == {"strategy": "vanilla", "server-epochs": 5}
    assert [one.request for one in cell.phases] == ["", "class:cat"]
    assert cell.measure(1, "accuracy/unlearned") == 0.25
    assert cell.phase(2) is None
    assert cell.setting("model") == "cnn"


def test_shadows_are_counted_and_never_shown(bench):
    bench.cell(strategy="vanilla")
    bench.describe({"strategy": "vanilla"}, 0, role="shadow", target_of="cell-000")
    bench.describe({"strategy": "vanilla"}, 1, role="shadow", status="failed", error="no memory")
    found = read_benchmark(bench.folder)
    assert len(found.cells) == 1
    assert found.shadows == 1
    assert [(one.shadow, one.error) for one in found.failures] == [(True, "no memory")]


def test_a_failed_cell_is_listed_with_its_error_in_one_line(bench):
    bench.cell(strategy="vanilla")
    bench.describe({"strategy": "u-shaped"}, 2, status="failed", error="two\nlines <b>")
    (failure,) = read_benchmark(bench.folder).failures
    assert (failure.error, failure.seed) == ("two lines <b>", 2)
    assert failure.coordinates == {"strategy": "u-shaped"}


def test_a_benchmark_that_was_killed_says_which_cells_are_missing(tmp_path):
    bench = Bench(tmp_path, cells=["cell-000", "cell-009", "cell-008", "cell-001", "cell-002"])
    bench.cell(strategy="vanilla")
    for status in ("planned", "running"):
        bench.describe({"strategy": "vanilla"}, 1, status=status)
    (tmp_path / "cells" / "cell-008").mkdir()
    (tmp_path / "cells" / "notes.txt").touch()
    found = read_benchmark(tmp_path)
    assert found.missing == ("cell-009", "cell-008", "cell-001", "cell-002")
    assert found.failures == ()


def test_cells_stand_as_they_were_planned_and_those_of_another_plan_do_not(tmp_path):
    bench = Bench(tmp_path, cells=["cell-002", "cell-000"])
    for strategy in ("vanilla", "u-shaped", "splitfed"):
        bench.cell(strategy=strategy)
    assert [one.id for one in read_benchmark(tmp_path).cells] == ["cell-002", "cell-000"]


def test_what_cannot_be_is_told(tmp_path):
    left = {"coordinates": {"strategy": "vanilla", "client-sync": "x"}, "why": "it has none"}
    Bench(tmp_path, left_out=[left]).cell()
    assert read_benchmark(tmp_path).left_out == ("strategy vanilla, client-sync x: it has none",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("result.json", None, "result.json is not there"),
        ("result.json", "{", "result.json cannot be read"),
        ("result.json", "[]", "result.json cannot be read"),
        ("result.json", '{"schema_version": 2}', "schema_version: Input should be 1"),
        ("result.json", '{"schema_version": 1}', "result.json cannot be read (ValueError"),
        (
            "result.json",
            '{"schema_version": 1, "phases": [3], "config": {}}',
            "result.json cannot be read",
        ),
        ("cell.json", "{", "cell.json cannot be read"),
        ("cell.json", '{"schema_version": 1}', "cell.json cannot be read"),
        ("cell.json", '{"schema_version": 9}', "schema_version of cell.json is 9"),
    ],
)
def test_a_broken_cell_is_a_failure_and_the_others_are_there(bench, name, content, said):
    broken = bench.cell(strategy="vanilla")
    bench.cell(strategy="splitwiper")
    path = bench.folder / "cells" / broken / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    found = read_benchmark(bench.folder)
    assert [cell.coordinates["strategy"] for cell in found.cells] == ["splitwiper"]
    (failure,) = found.failures
    assert failure.id == broken
    assert said in failure.error


def test_what_is_no_text_is_a_failure_too(bench):
    bench.cell(strategy="splitwiper")
    broken = bench.cell(strategy="vanilla")
    (bench.folder / "cells" / broken / "result.json").write_bytes(b"\xff\xfe\x00")
    assert [one.id for one in read_benchmark(bench.folder).failures] == [broken]


@pytest.mark.parametrize("content", ["{", "[1]", '{"schema_version": 7}'])
def test_metrics_that_cannot_be_read_cost_the_metrics_alone(bench, content):
    name = bench.cell(strategy="vanilla")
    bench.write(f"cells/{name}/metrics.json", content)
    found = read_benchmark(bench.folder)
    assert len(found.cells) == 1
    assert "metrics.json" in found.failures[0].error


def test_metrics_belong_to_their_phase(bench):
    told = metrics(
        membership=membership(0.4), membership_reference=membership(0.6), divergence=None
    )
    bench.cell(metrics=told, strategy="vanilla")
    (cell,) = read_benchmark(bench.folder).cells
    assert cell.phase(0).named("membership") == {}
    assert cell.measure(1, "membership/hit_rate") == 0.4
    assert cell.measure(1, "membership_reference/hit_rate") == 0.6
    assert set(cell.phase(1).rocs) == {"membership", "membership_reference"}
    assert cell.phase(1).named("divergence/") == {}


def test_a_number_that_is_none_was_not_measured(bench):
    broken = json.loads('{"forgotten": NaN, "retained": null, "test": 0.5}')
    bench.cell(metrics=metrics(divergence=broken), strategy="vanilla")
    (cell,) = read_benchmark(bench.folder).cells
    assert cell.phase(1).named("divergence/") == {"test": 0.5}


def test_what_is_no_folder_of_a_benchmark_is_refused_in_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        line = refused(folder)
        assert str(folder) in line
        assert "benchmark.json is not there" in line


@pytest.mark.parametrize(
    "about",
    ["", "{", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1, "environment": 3}'],
)
def test_an_unreadable_benchmark_is_refused_in_one_line(tmp_path, about):
    (tmp_path / "benchmark.json").write_text(about)
    assert "DIR" in refused(tmp_path)


def test_a_table_that_the_paper_does_not_have_is_refused(tmp_path):
    Bench(tmp_path, paper=["client_time", "figure_12"]).cell(strategy="vanilla")
    assert "paper='figure_12'" in refused(tmp_path)
    Bench(tmp_path, axes="strategy")
    assert "axes='strategy'" in refused(tmp_path)


def test_a_benchmark_without_a_finished_cell_is_refused_with_what_there_is(tmp_path):
    bench = Bench(tmp_path, cells=["a", "b"])
    assert "0 failed and 2 missing" in refused(tmp_path)
    bench.describe({}, 0, id="a", status="failed", error="out of memory")
    line = refused(tmp_path)
    assert "1 failed and 1 missing" in line
    assert "a: out of memory" in line


def test_the_reference_is_the_one_that_the_metrics_name(bench):
    one = bench.cell(strategy="vanilla", unlearning="retrain", momentum=0.5)
    bench.cell(strategy="vanilla", unlearning="fine-tune", metrics=metrics(reference=one))
    retrained, tuned = read_benchmark(bench.folder).cells
    found = read_benchmark(bench.folder)
    assert found.reference(tuned) == retrained
    assert found.reference(retrained) is None


def test_without_metrics_it_is_the_one_that_the_cell_names(bench):
    one = bench.cell(strategy="vanilla", unlearning="retrain")
    where = {"strategy": "vanilla", "unlearning": "mine:Tuned", "options": "epochs=2"}
    bench.cell(**where)
    bench.describe(where, 0, id="cell-001", reference=one)
    retrained, tuned = read_benchmark(bench.folder).cells
    found = read_benchmark(bench.folder)
    assert found.reference(tuned) == retrained
    assert found.unreferenced == ()


def test_without_metrics_it_is_the_one_that_differs_in_how_it_forgets_alone(bench):
    bench.cell(strategy="vanilla", unlearning="retrain", seed=0)
    bench.cell(strategy="vanilla", unlearning="retrain", seed=1)
    bench.cell(strategy="splitwiper", unlearning="retrain", seed=1)
    bench.cell(strategy="vanilla", unlearning="fine-tune", seed=1)
    bench.cell(strategy="u-shaped", unlearning="fine-tune", seed=1)
    found = read_benchmark(bench.folder)
    assert found.reference(found.cells[3]) == found.cells[1]
    assert found.reference(found.cells[4]) is None
