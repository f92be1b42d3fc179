"""Clients that hang or die, on real Flower and Ray: nothing is waited for without end."""

import json
import os

import pytest

from tests.flower.test_end_to_end import ROOT, settings, split_unlearning

pytestmark = pytest.mark.flower

FAILING = """
import os, time
from split_unlearning import Option, Vanilla, VanillaClient, action

class Client(VanillaClient):
    @action
    def train(self, message):
        if self.client == 1 and message.fields["epoch"] == 1:
            time.sleep(600) if self.setting.options["how"] == "hang" else os._exit(1)
        return super().train(message)

class Failing(Vanilla):
    '''Vanilla, with a client that fails in its second turn.'''
    client = "failing:Client"
    own_options = {"how": Option("hang")}
"""


def run(tmp_path, how):
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    return split_unlearning(
        *("run", "--clients", "3", "--strategy", "failing:Failing"),
        *settings(options=f"how={how}", round_timeout=25, skip_absent="true", server_epochs=3),
        *settings(forget="", distribution="iid"),
        folder=tmp_path,
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )


def test_a_client_that_hangs_is_skipped_and_the_run_ends(tmp_path):
    done = run(tmp_path, "hang")
    assert done.returncode == 0, done.stderr
    (learn,) = json.loads((tmp_path / "results" / "result.json").read_text())["phases"]
    (line,) = learn["absent"]
    assert line.startswith("client 1 failed in phase learn at 'train': ")
    assert "(round-timeout)" in line
    assert learn["accuracy"]["retained"] > 0.2
    assert learn["timing"]["questions"]["train"]["times"] == 9


def test_a_worker_that_dies_ends_the_run_even_if_epochs_may_skip(tmp_path):
    done = run(tmp_path, "die")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "client 1 failed in phase learn at 'train': Flower lost its worker" in line
    assert not (tmp_path / "results" / "result.json").exists()
