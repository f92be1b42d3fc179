"""Each audited cell is held against its retraining and its shadow runs, once."""

import json

import pytest
import tomli_w

from split_unlearning.simulations.benchmark.cells import carry_out_cells, planned_cells
from split_unlearning.simulations.benchmark.measuring import measure
from split_unlearning.simulations.benchmark.runner import lay_out
from split_unlearning.simulations.benchmark.spec import read_spec
from split_unlearning.simulations.server_app import carry_out
from tests.local_grid import LocalGrid

SPEC = {
    "clients": 2,
    "run": {
        "server-epochs": 2,
        "pretrain-epochs": 1,
        "samples": 400,
        "audit": True,
        "distribution": "iid",
        "forget": "samples:0.5@class:2",
    },
    "shadows": {"count": 2, "share": 0.5},
    "grid": [{"strategy": "splitwiper", "unlearning": ["retrain", "fine-tune"]}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return carried_out(tmp_path_factory.mktemp("benchmark"), SPEC)


def carried_out(path, spec):
    """Run all cells of a spec, and measure them; return the benchmark's folder."""
    (path / "spec.toml").write_text(tomli_w.dumps(spec))
    out = path / "out"
    lay_out(read_spec(path / "spec.toml", "full", {}), out, False, "command")
    grid = LocalGrid({}, num_clients=2)

    def run(config, envelope):
        return carry_out(config, grid, lambda session: session.run(), envelope)

    carry_out_cells(out, run)
    assert measure(out) == []
    return out


def metrics(folder):
    cells = {cell.coordinates["unlearning"]: cell for cell in targets(folder)}
    return {
        name: json.loads((cell.folder(folder) / "metrics.json").read_text())
        for name, cell in cells.items()
    }


def targets(folder):
    return [cell for cell in planned_cells(folder) if cell.role == "target"]


def test_methods_share_their_shadow_runs(folder):
    assert [cell.role for cell in planned_cells(folder)] == ["target"] * 2 + ["shadow"] * 2


def test_a_cell_is_held_against_its_retraining(folder):
    found = metrics(folder)
    reference = next(
        one.id for one in targets(folder) if one.coordinates["unlearning"] == "retrain"
    )
    for name, measured in found.items():
        assert measured["reference"] == reference
        learn, unlearn = measured["phases"]
        assert learn["divergence"]["forgotten"] == 0
        distance = unlearn["divergence"]["forgotten"]
        assert distance == 0 if name == "retrain" else distance > 0
        assert unlearn["membership"]["members"] > 0
        assert unlearn["membership_reference"] == found["retrain"]["phases"][1]["membership"]


def test_vanilla_retrains_as_the_strategy_that_caches_its_gradients(tmp_path):
    synced = {"client-sync": "handoff"}
    projected = {"strategy": "gradient-projection", "unlearning": "gradient-projection"}
    grids = [{"strategy": "vanilla", "unlearning": "retrain", **synced}, {**projected, **synced}]
    spec = {"clients": 2, "run": SPEC["run"], "grid": grids}
    found = metrics(carried_out(tmp_path, spec))
    learn, unlearn = found["gradient-projection"]["phases"]
    # Until then both have done the same, bit for bit.
    assert learn["divergence"] == dict.fromkeys(("forgotten", "retained", "test"), 0.0)
    assert unlearn["divergence"]["forgotten"] > 0


def test_it_is_paid_for_once_and_again_when_a_result_is_another(folder):
    stale, fresh = (cell.folder(folder) / "metrics.json" for cell in targets(folder))
    before = [path.stat().st_mtime_ns for path in (stale, fresh)]
    assert measure(folder) == []
    assert [path.stat().st_mtime_ns for path in (stale, fresh)] == before
    result = fresh.parent / "result.json"
    result.write_text(result.read_text() + "\n")
    assert measure(folder) == []
    assert stale.stat().st_mtime_ns == before[0]
    assert fresh.stat().st_mtime_ns > before[1]


def test_a_file_that_cannot_be_read_is_a_line_that_names_the_cell(folder):
    cell = targets(folder)[1]
    (cell.folder(folder) / "metrics.json").unlink()
    outputs = cell.folder(folder) / "outputs.safetensors"
    whole = outputs.read_bytes()
    try:
        outputs.write_bytes(whole[:100])
        (line,) = measure(folder)
    finally:
        outputs.write_bytes(whole)
    assert cell.id in line
    assert "\n" not in line
    assert measure(folder) == []
