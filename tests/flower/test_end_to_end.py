"""The command line, Flower, Ray and the link together, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local_grid import LocalRun

pytestmark = pytest.mark.flower

RAY_WAS_TOO_SLOW = "Timed out waiting for file"
ROOT = Path(__file__).resolve().parents[2]


def split_unlearning(*arguments, folder, **environment):
    """Run the command line of this checkout, in a folder of the user's."""
    command = [
        sys.executable,
        "-c",
        "from split_unlearning.simulations.cli import main; main()",
        *arguments,
    ]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    for _ in range(2):
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )
        # Ray gives its own start 30 seconds, which a busy machine can take: once more, then.
        if RAY_WAS_TOO_SLOW not in done.stderr:
            break
    return done


def settings(**values):
    words = []
    for name, value in values.items():
        words += ["--set", f"{name.replace('_', '-')}={value}"]
    return words


def assert_equals_one_process(result, local):
    """Clients one at a time in one process give the same bits as on Ray."""
    for ray_phase, local_phase in zip(result["phases"], local.phases, strict=True):
        assert ray_phase["digests"] == local_phase["digests"]
        assert ray_phase["accuracy"] == local_phase["accuracy"]


def test_the_main_job(tmp_path):
    done = split_unlearning("run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results" / "latest" / "result.json").read_text())
    learn, unlearn = result["phases"]
    assert learn["accuracy"]["unlearned"] > 0.9
    assert unlearn["accuracy"]["unlearned"] == 0
    assert unlearn["accuracy"]["retained"] > 0.95
    others = [client for client in unlearn["clients"] if not client["requested"]]
    assert len(others) == 4
    assert all(client["messages"] == 0 for client in others)
    for word in ("forget class:2", "1 requesting", "4 other", "100.0 %", "1442  355"):
        assert word in done.stdout
    assert not (tmp_path / "results" / "latest" / "log.txt").exists()
    assert_equals_one_process(result, LocalRun(5))


@pytest.mark.slow
def test_a_plug_in_beside_modules_named_as_our_rooms_runs_and_fails_in_one_line(tmp_path):
    for room in ("strategies", "unlearning", "simulations"):
        (tmp_path / f"{room}.py").write_text("raise RuntimeError('this is the user's own')")
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "__init__.py").touch()
    (tmp_path / "models.py").write_text("VERB = 'failed'")
    (tmp_path / "my_plugin.py").write_text(
        "import models\n"
        "from split_unlearning import Option, SplitClient, SplitStrategy, action\n"
        "class Client(SplitClient):\n"
        "    @action\n"
        "    def greet(self, message):\n"
        "        said = f'{models.VERB}: client {self.client} of '\n"
        "        raise RuntimeError(said + self.setting.options['mood'])\n"
        "class Strategy(SplitStrategy):\n"
        "    '''Greets.'''\n"
        "    client = 'my_plugin:Client'\n"
        "    own_options = {'mood': Option('joy')}\n"
        "    def learn(self):\n"
        "        yield self.ask([1], 'greet')\n"
        "    def unlearn(self, requests):\n"
        "        yield self.ask_to_forget(requests, 'greet')\n"
    )
    done = split_unlearning(
        *("run", "--clients", "2", "--strategy", "my_plugin:Strategy"),
        *settings(options="mood=gloom"),
        folder=tmp_path,
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "client 1 failed in phase learn at 'greet'" in line
    assert "failed: client 1 of gloom" in line
    assert len(list(tmp_path.glob("results/*/log.txt"))) == 1
