"""A client's whole model as files that need nothing of this package."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.files import write_json
from split_unlearning.reporting.result import Result
from split_unlearning.simulations.whole_models import raw_samples, whole_model

WEIGHTS, PROGRAM, ABOUT, LOADER = "model.safetensors", "model.pt2", "config.json", "load.py"

_LOAD = '''\
"""Predict with an exported model: python load.py samples.npy prints a label a sample."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

here = Path(__file__).parent
labels = json.loads((here / "config.json").read_text())["labels"]
model = torch.export.load(here / "model.pt2").module()
for number in model(torch.from_numpy(np.load(sys.argv[1]))).argmax(dim=1).tolist():
    print(labels[number])
'''


def export(result: Result, folder: Path, client: int, phase: int, target: Path) -> list[str]:
    """Write a client's model to a new folder; return the names of its files.

    `folder` and `phase` are those of `whole_model`. ``model.safetensors`` holds the weights of
    preprocessing, client segment and server segment, and ``config.json`` what they are of.
    ``model.pt2`` is the whole as a program of torch.export, and ``load.py`` runs it; where
    torch.export cannot follow the model, ``config.json`` says why in their place.

    Raises
    ------
    UserError
        As `whole_model`, and if the folder is not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise refuse("out", str(target), "a new or an empty folder")
    model = whole_model(result, folder, client, phase)
    samples, _ = raw_samples(result, client, "test")
    example = torch.from_numpy(samples[:2])
    target.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        target / WEIGHTS,
        metadata={"config": json.dumps(result.config)},
    )
    measured = result.phases[phase]
    why_not = _export_program(model, example, target / PROGRAM)
    about = {
        "client": client,
        "task": measured.task,
        "request": measured.request,
        "labels": list(measured.accuracy.per_label),
        "input": {"dtype": str(example.dtype), "shape": ["n", *example.shape[1:]]},
        "program": why_not or PROGRAM,
        "digests": {
            "server": measured.digests.server,
            "client": measured.digests.clients.get(client),
        },
        "strategy": result.strategy,
        "unlearning": result.unlearning,
        "config": result.config,
    }
    write_json(target / ABOUT, about)
    if not why_not:
        (target / LOADER).write_text(_LOAD, encoding="utf-8")
    return sorted(path.name for path in target.iterdir())


def _export_program(model: nn.Module, example: torch.Tensor, path: Path) -> str:
    """Write the model as a program for any number of samples; return why that is not possible."""
    try:
        with torch.no_grad():
            any_number = ({0: torch.export.Dim("samples")},)
            program = torch.export.export(model, (example,), dynamic_shapes=any_number)
        torch.export.save(program, path)
    except Exception as error:  # noqa: BLE001 - a stranger's layers may raise anything
        path.unlink(missing_ok=True)
        return " ".join(f"not exported ({type(error).__name__}: {error})".split())[:500]
    return ""
