"""A benchmark as a user runs it: one grid, killed half-way, gone on with, whatever cells do.

Cells fail in each of the ways in which real Flower and Ray have a say: for want of room, by the
death of a worker, by a client that hangs. Nothing is waited for without end.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from split_unlearning.simulations.benchmark.cells import planned_cells
from tests.flower.test_end_to_end import ROOT, assert_equals_one_process, split_unlearning
from tests.local_grid import LocalRun

pytestmark = [pytest.mark.flower, pytest.mark.slow]

SPEC = """
[[grid]]
clients = 2
server-epochs = 2
strategy = ["splitwiper", "vanilla"]
momentum = 0.9
# The clients leave the server nothing.
[[grid]]
clients = 2
server-num-cpus = 1
[[grid]]
clients = 3
strategy = "failing:Failing"
options = "how=die"
skip-absent = true
server-epochs = 3
forget = ""
distribution = "iid"
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
# After the others, when what takes long is behind each process: no turn takes ten seconds then.
[[grid]]
clients = 3
strategy = "failing:Failing"
options = "how=hang"
round-timeout = 10.0
skip-absent = true
server-epochs = 3
forget = ""
distribution = "iid"
"""

FAILING = '''
import os, time
from split_unlearning import Option, Vanilla, VanillaClient, action

class Client(VanillaClient):
    @action
    def train(self, message):
        if self.client == 1 and message.fields["epoch"] == 1:
            time.sleep(600) if self.setting.options["how"] == "hang" else os._exit(1)
        return super().train(message)

class Failing(Vanilla):
    """Vanilla, with a client that fails in its second turn."""

    client = "failing:Client"
    own_options = {"how": Option("hang")}
'''


FAILED = ("no room", "die")


def cell_name(cell):
    """What is special about a cell."""
    if "server-num-cpus" in cell.coordinates:
        return "no room"
    options = str(cell.coordinates.get("options", ""))
    return options.removeprefix("how=") or cell.coordinates["strategy"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    (tmp_path / "failing.py").write_text(FAILING)
    return tmp_path


def test_a_grid_is_killed_half_way_and_gone_on_with(folder):
    out = folder / "out"
    command = "from split_unlearning.simulations.cli import main; main()"
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
    assert 0 < len(done) < 5
    before = {name: (out / "cells" / name / "result.json").stat().st_mtime_ns for name in done}

    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    again = split_unlearning("benchmark", "spec.toml", "--out", "out", folder=folder, **path)
    assert again.returncode == 2
    assert "--resume" in again.stderr

    rest = ("benchmark", "spec.toml", "--out", "out", "--resume")
    ended = split_unlearning(*rest, folder=folder, **path)
    # What fails is written down, and the others are done.
    assert ended.returncode == 1, ended.stderr
    cells = planned_cells(out)
    named = {cell_name(cell): cell for cell in cells}
    assert {name for name, cell in named.items() if cell.status == "failed"} == {"no room", "die"}
    assert all(cell.status == "done" for name, cell in named.items() if name not in FAILED)
    for name in done:
        assert (out / "cells" / name / "result.json").stat().st_mtime_ns == before[name]

    no_room, die = (named[name] for name in FAILED)
    assert "server-num-cpus=1 and server-num-gpus=0 do not fit beside the clients" in no_room.error
    assert "0 CPUs and 0 GPUs are free" in no_room.error
    # Though its epochs may skip a client.
    assert "client 1 failed in phase learn at 'train': Flower lost its worker" in die.error
    for cell in (no_room, die):
        assert cell.error in " ".join(ended.stdout.split())
        assert not (cell.folder(out) / "result.json").exists()

    results = {
        name: json.loads((cell.folder(out) / "result.json").read_text())
        for name, cell in named.items()
        if cell.status == "done"
    }
    (learn,) = results.pop("hang")["phases"]
    (line,) = learn["absent"]
    assert line.startswith("client 1 failed in phase learn at 'train': ")
    assert "(round-timeout)" in line
    assert learn["accuracy"]["retained"] > 0.2
    assert learn["timing"]["questions"]["train"]["times"] == 9
    assert len(results) == 4
    for name, result in results.items():
        settings = {key.replace("-", "_"): one for key, one in named[name].settings.items()}
        assert_equals_one_process(result, LocalRun(named[name].clients, **settings))
