"""How well clients that are gone, or away, are done without, and what rounding to others is worth.

    python benchmarks/lost_gradients.py --seeds 3

Five clients hand one client segment on. The first holds what is to be forgotten, all images of one
label or all with a backdoor, beside images like everybody's; then it is gone, with its cache. The
server still has the gradients of its steps; those of the client segment are lost. At three depths
of the cut, which put more and more of the network into the client segment:

- there: the client is there after all, and its gradients are projected out of both sides;
- none: it is dropped, and nothing stands for its gradients (``lost-gradients=none``);
- nearest: it is dropped, and the nearest gradient of another client stands for each of its own;
- one away, three away: the client is there after all, and so many of the others are not: nothing is
  projected off their gradients of the client segment, and they do not train on;
- original, retrain, fine-tune: nothing is forgotten; everybody begins anew, or trains on for as
  long as after a projection, without the client.

Reported is the accuracy on the test images of the label, or how often the backdoor's square makes a
test image that label; accuracy on all test images (without that label where all of it is
forgotten); how much of the parameters clients hold; and, of the client segment alone, the cosine
between what rounding adds to the weights and what the client's own gradients would add.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from figures import say
from projection import CLIENTS, Weights, measured, planted
from torch.nn.functional import cosine_similarity

from split_unlearning.clients.gradient_projection import GradientProjectionClient
from split_unlearning.models.split import CutModel
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.loading import load
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.local_grid import LocalRun, dealt
from tests.state.bench import folders, learn, unlearn

CUTS = ("block1", "block2", "block3")
AWAY: dict[str, list[int]] = {"one away": [2], "three away": [2, 3, 4]}
OTHERS: dict[str, dict[str, Any]] = {
    "original": {"unlearning": "none"},
    "retrain": {"unlearning": "retrain"},
    "fine-tune": {"unlearning": "fine-tune", "fine_tune_epochs": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="digits", help="digits, or absolute path of an npz file")
    parser.add_argument("--images", type=int, default=1400)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cuts", nargs="+", default=list(CUTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = {}
    for scenario in ("class", "backdoor"):
        for cut in arguments.cuts:
            seeds = [at_a_cut(scenario, cut, seed, arguments) for seed in range(arguments.seeds)]
            for row in seeds[0]:
                name = f"{scenario}, {cut}, {row}"
                figures[name] = {
                    key: round(fmean(one[row][key] for one in seeds), 3) for key in seeds[0][row]
                }
                print(f"{name}: {figures[name]}", flush=True)
    say(figures, arguments.json)


def at_a_cut(
    scenario: str, cut: str, seed: int, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Return the figures of every way to forget the first client."""
    name = arguments.data if arguments.data == "digits" else f"npz:{arguments.data}"
    data, gone, probe = planted(load(name), scenario, seed, arguments.images)
    others = np.setdiff1d(np.arange(len(data.y_train)), gone)
    first, *rest = np.array_split(np.random.default_rng(seed).permutation(others), CLIENTS)
    parts = [np.union1d(first, gone), *map(np.sort, rest)]
    tests = tuple(np.array_split(np.arange(len(data.y_test)), CLIENTS))
    settings: dict[str, Any] = {
        "client_sync": "handoff",
        "cut": cut,
        "server_epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "momentum": arguments.momentum,
        "seed": seed,
        "strategy": "vanilla",
    }
    judge = partial(
        measured, model=CutModel("cnn", cut), data=data, scenario=scenario, forgotten=gone
    )
    found: dict[str, dict[str, float]] = {}
    steps: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as folder, dealt(data, Plan(tuple(parts), tests)):
        for way in ("there", "none", "nearest", *AWAY):
            kept, steps[way] = projected(Path(folder) / way, settings, way)
            found[way], _ = judge(kept, probe=probe)
        for way, more in OTHERS.items():
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                run = LocalRun(CLIENTS, **settings, **more, forget="client:0")
            found[way], _ = judge((run.client_state(1), run.server_state), probe=probe)
    found["nearest"]["cosine"] = float(cosine_similarity(steps["nearest"], steps["there"], dim=0))
    return found


def projected(
    path: Path, settings: dict[str, Any], way: str
) -> tuple[tuple[Weights, Weights], torch.Tensor]:
    """Learn, and forget the first client; return both segments, and what moved the client's."""
    settings = {**settings, "unlearning": "gradient-projection", "forget": ""}
    gone, absent = way in ("none", "nearest"), AWAY.get(way, [])
    if gone:
        settings["lost_gradients"] = way
    moved, keep = [], GradientProjectionClient.keep_weights

    def noticed(client: GradientProjectionClient, weights: Weights) -> None:
        moved.append(weights)
        keep(client, weights)

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        learn(path, settings, CLIENTS)
        before = segment_of(path)
        if gone:
            shutil.rmtree(path / "clients" / "0")
        with patch.object(GradientProjectionClient, "keep_weights", noticed):
            nodes = CLIENTS - gone - len(absent)
            run = unlearn(path, settings, ("client:0", 0), nodes=nodes, drop=gone, absent=absent)
    assert run is not None
    # Everybody moves by the same, before anybody trains on.
    step = torch.cat([(moved[0][name] - before[name]).flatten() for name in before])
    return (segment_of(path), run.server_state), step


def segment_of(path: Path) -> Weights:
    """Return the client segment that a state-dir keeps; it was handed on to everybody."""
    kept = TensorStore(folders(path)["client 1"]).load("segment")
    assert kept is not None
    return kept


if __name__ == "__main__":
    main()
