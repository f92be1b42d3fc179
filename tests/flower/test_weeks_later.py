"""Learning, requests weeks later with a client gone, and their proof, as a user does it."""

import json
import shutil

import pytest

from split_unlearning.simulations.state.reception import receive
from split_unlearning.simulations.state.state_dir import open_state
from tests.flower.test_end_to_end import settings, split_unlearning
from tests.local_grid import LocalRun

pytestmark = [pytest.mark.flower, pytest.mark.slow]

SHORT = {
    "forget": "",
    "distribution": "iid",
    "pretrain_epochs": 2,
    "server_epochs": 4,
    "slices": 2,
    "server_slices": 2,
    "stable_clients": "2,0,1",
}


def test_a_request_weeks_later(tmp_path):
    state = tmp_path / "state"
    learned = split_unlearning(
        # Two CPUs a client: one at a time on two cores. The main job runs them two at a time.
        *("run", "--clients", "3", "--client-cpus", "2"),
        *settings(state_dir="state", **SHORT),
        folder=tmp_path,
    )
    assert learned.returncode == 0, learned.stderr
    # Who asks nothing may have lost everything by then.
    shutil.rmtree(state / "clients" / "2")
    asked = split_unlearning(
        *("unlearn", "state", "--forget", "class:2", "--client", "1"),
        *("--forget", "samples:0.1@class:3", "--client", "0"),
        folder=tmp_path,
    )
    assert asked.returncode == 0, asked.stderr
    learn, unlearn = json.loads((state / "result.json").read_text())["phases"]
    assert [one["messages"] for one in unlearn["clients"]] == [2, 2, 0]
    assert unlearn["accuracy"]["per_client"]["2"] is None

    there = tmp_path / "there"
    assert learn["digests"] == LocalRun(3, state_dir=str(there), **SHORT).digests
    receive(open_state(str(there)), [("class:2", 1), ("samples:0.1@class:3", 0)])
    here = LocalRun(2, state_dir=str(there), nodes=[0, 1], **SHORT)
    assert unlearn["digests"] == here.digests

    again = split_unlearning(
        *("unlearn", "state", "--forget", "class:2", "--client", "1"), folder=tmp_path
    )
    assert again.returncode == 0
    assert "is done" in again.stdout

    # A dropped client need not be there, and is not trained with to verify; nobody else's is lost.
    dropped = split_unlearning(
        "unlearn", "state", "--drop-client", "--client", "2", folder=tmp_path
    )
    assert dropped.returncode == 0, dropped.stderr
    verified = split_unlearning("verify", "state", folder=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert "holds; 3 segments" in verified.stdout

    certificate = state / "certificate.json"
    checked = split_unlearning("verify", "--certificate", str(certificate), folder=tmp_path)
    assert checked.returncode == 0
    certificate.write_text(certificate.read_text().replace("class:2", "class:3"))
    changed = split_unlearning(
        "verify", "state", "--certificate", str(certificate), folder=tmp_path
    )
    assert changed.returncode == 3
    assert "changed since it was signed" in changed.stderr


def test_gradients_of_a_client_that_is_away_and_then_gone_weeks_later(tmp_path):
    """Everybody else trains on; the server takes back what the client did, from its own cache."""
    chosen = {
        "strategy": "vanilla",
        "unlearning": "gradient-projection",
        "client_sync": "handoff",
        "distribution": "iid",
        "server_epochs": 2,
        "forget": "",
    }
    learned = split_unlearning(
        *("run", "--clients", "3"), *settings(state_dir="state", **chosen), folder=tmp_path
    )
    assert learned.returncode == 0, learned.stderr
    without = split_unlearning(
        *("unlearn", "state", "--forget", "class:2", "--client", "0", "--absent", "1"),
        folder=tmp_path,
    )
    assert without.returncode == 0, without.stderr
    shutil.rmtree(tmp_path / "state" / "clients" / "1")
    dropped = split_unlearning(
        *("unlearn", "state", "--drop-client", "--client", "1"), folder=tmp_path
    )
    assert dropped.returncode == 0, dropped.stderr
    learn, away, gone = json.loads((tmp_path / "state" / "result.json").read_text())["phases"]
    assert away["absent"] == ["client 1 was away"]
    assert any("gradients are gone" in line for line in gone["approximations"])

    there = str(tmp_path / "there")
    assert learn["digests"] == LocalRun(3, state_dir=there, **chosen).digests
    receive(open_state(there), [("class:2", 0)], absent=[1])
    assert away["digests"] == LocalRun(2, state_dir=there, **chosen).digests
    receive(open_state(there), [("client:1", 1)], drop=True)
    assert gone["digests"] == LocalRun(2, state_dir=there, **chosen).digests
