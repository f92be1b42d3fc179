"""A run in this process is the run that Flower and Ray carry out."""

import json
from unittest.mock import patch

import pytest
import ray
import torch

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.devices import device, without_gpus
from split_unlearning.simulations import client_app, console
from split_unlearning.simulations.launching.launch import run_app
from split_unlearning.simulations.local_engine import run_here

SHORT = {"server-epochs": 2, "pretrain-epochs": 2, "samples": 400, "forget": "class:2"}


def ignore(line):
    pass


def carried_out(run, folder, **more):
    outcome = run({**SHORT, **more, "out": str(folder)}, 3, on_line=ignore)
    assert outcome.error == ""
    return json.loads((folder / "result.json").read_text())


def test_it_writes_its_result_and_prints_nothing(tmp_path, capsys):
    heard = []
    outcome = run_here({**SHORT, "out": str(tmp_path)}, 3, on_line=heard.append)
    assert outcome.succeeded
    assert (tmp_path / "result.json").exists()
    assert f"{console.PROGRESS}splitwiper: learn with 3 clients" in heard
    assert capsys.readouterr().out == ""


def test_what_fails_is_said_in_one_line_with_what_was_raised():
    outcome = run_here({**SHORT, "forget": "client:7"}, 3, on_line=ignore)
    assert not outcome.succeeded
    assert "allowed: a client from 0 to 2" in outcome.error
    assert isinstance(outcome.raised, UserError)


def test_it_leaves_the_process_as_it_was(tmp_path):
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(2)
    torch.set_deterministic_debug_mode("default")
    try:
        with (
            patch.object(ray, "is_initialized", lambda: True),
            patch.object(client_app, "keep_freed_memory") as kept,
        ):
            carried_out(run_here, tmp_path)
        assert torch.get_num_threads() == 2
        assert torch.get_deterministic_debug_mode() == 0
        assert not kept.called
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])


def test_clients_that_are_given_no_gpu_use_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device().type == "cuda"
    with without_gpus():
        assert device().type == "cpu"


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.parametrize("strategy", ["splitwiper", "vanilla"])
def test_it_is_the_run_of_flower_and_ray_to_the_last_bit_and_byte(strategy, tmp_path):
    here, there = (
        carried_out(run, tmp_path / name, strategy=strategy)
        for name, run in (("here", run_here), ("there", run_app))
    )
    for ours, theirs in zip(here["phases"], there["phases"], strict=True):
        assert ours["digests"] == theirs["digests"]
        assert ours["accuracy"] == theirs["accuracy"]
        for name in ("bytes_up", "bytes_down", "messages"):
            costs = [[client[name] for client in one["clients"]] for one in (ours, theirs)]
            assert costs[0] == costs[1]
