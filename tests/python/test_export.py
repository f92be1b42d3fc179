"""An exported model predicts what the run measured, without this package."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import split_unlearning as su
from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.cli import app
from tests.refusals import refusal


@pytest.fixture(scope="module")
def run():
    return su.run(
        strategy="splitwiper", dataset="digits", forget="class:3", clients=3, server_epochs=8
    )


def test_the_loader_predicts_without_this_package(run, tmp_path):
    x, y = run.samples(1)
    folder = run.export(1, tmp_path / "model", phase=0)
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-I", str(folder / "load.py"), str(tmp_path / "x.npy")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    share = np.mean(
        [int(label) == number for label, number in zip(said.stdout.split(), y, strict=True)]
    )
    assert share == pytest.approx(run.phases[0].accuracy.per_client[1])
    assert "split_unlearning" not in (folder / "load.py").read_text(encoding="utf-8")
    weights = run.model(1, 0).state_dict()
    kept = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], kept[name]) for name in weights)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (about["client"], about["task"], about["request"]) == (1, 0, None)
    assert about["digests"]["server"] == run.phases[0].digests.server
    assert about["input"]["shape"] == ["n", 1, 8, 8]


def test_the_command_line_says_what_it_wrote(run, tmp_path):
    saved = run.save(tmp_path / "run")
    target = tmp_path / "out"
    shown = CliRunner().invoke(app, ["export", str(saved), "--client", "2", "--out", str(target)])
    assert shown.exit_code == 0, shown.output
    assert [Path(line).name for line in shown.stdout.split()] == [
        "config.json", "load.py", "model.pt2", "model.safetensors",
    ]  # fmt: skip
    again = CliRunner().invoke(app, ["export", str(saved), "--out", str(target)])
    assert again.exit_code == 2
    assert "a new or an empty folder" in again.stderr
    assert "a client from 0 to 2" in refusal(run.export, 7, tmp_path / "other", error=UserError)
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_exported_says_why_and_leaves_the_weights(run, tmp_path):
    with patch("torch.export.export", side_effect=RuntimeError("a branch\non data")):
        folder = run.export(0, tmp_path / "model")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert about["program"] == "not exported (RuntimeError: a branch on data)"
    assert sorted(one.name for one in folder.iterdir()) == ["config.json", "model.safetensors"]
