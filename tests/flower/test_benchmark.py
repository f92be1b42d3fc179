"""A benchmark as a user runs it: one grid, killed half-way, gone on with."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from simulations.benchmark.cells import planned_cells
from tests.flower.test_end_to_end import ROOT, assert_equals_one_process, split_unlearning
from tests.local_grid import LocalRun

pytestmark = pytest.mark.flower

SPEC = """
[[grid]]
clients = 2
server-epochs = 2
strategy = ["splitwiper", "vanilla"]
momentum = 0.9
[[grid]]
strategy = "failing:Failing"
clients = 2
# Two clients on the link at once.
[[grid]]
clients = 3
strategy = "splitfed"
server-epochs = 2
distribution = "iid"
# Gradient caches on both sides, and what is removed from client to client.
[[grid]]
clients = 3
strategy = "gradient-projection"
unlearning = "gradient-projection"
client-sync = "handoff"
cache-codec = "int8"
server-epochs = 4
"""

FAILING = '''
import split_unlearning as su

class Failing(su.SplitStrategy):
    """Asks what its clients cannot do."""

    client = "failing:FailingClient"

    def learn(self):
        yield self.ask(self.clients, "fail")

    def unlearn(self, requests):
        yield from self.learn()

class FailingClient(su.SplitClient):
    @su.action
    def fail(self, message):
        raise ValueError("no way")
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    (tmp_path / "failing.py").write_text(FAILING)
    return tmp_path


def test_a_grid_is_killed_half_way_and_gone_on_with(folder):
    out = folder / "out"
    command = "from simulations.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "benchmark", "spec.toml", "--out", "out"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        stdout=subprocess.PIPE,
    )
    deadline = time.monotonic() + 180
    while not (out / "benchmark.json").exists() or not any(
        cell.status == "done" for cell in planned_cells(out)
    ):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {cell.id for cell in planned_cells(out) if cell.status == "done"}
    assert len(done) < 5
    before = {name: (out / "cells" / name / "result.json").stat().st_mtime_ns for name in done}

    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    again = split_unlearning("benchmark", "spec.toml", "--out", "out", folder=folder, **path)
    assert again.returncode == 2
    assert "--resume" in again.stderr

    rest = ("benchmark", "spec.toml", "--out", "out", "--resume")
    ended = split_unlearning(*rest, folder=folder, **path)
    # One of the five fails, and is written down.
    assert ended.returncode == 1, ended.stderr
    assert "no way" in ended.stdout
    cells = planned_cells(out)
    assert sorted(cell.status for cell in cells) == ["done"] * 4 + ["failed"]
    for name in done:
        assert (out / "cells" / name / "result.json").stat().st_mtime_ns == before[name]
    for cell in cells:
        if cell.status == "done":
            result = json.loads((cell.folder(out) / "result.json").read_text())
            settings = {key.replace("-", "_"): cell.settings[key] for key in cell.settings}
            assert_equals_one_process(result, LocalRun(cell.clients, **settings))
