"""Requests to gradient projection one after the other, each from the caches that the last one left.

    python benchmarks/projection_in_a_row.py --seeds 3 --fine-tune-share 0.1 0.2

Five clients (``iid``) hold scikit-learn's digits, hand the client segment on, and keep a state-dir.
Three labels are forgotten, each by a request of its own. Reported after each request: accuracy on
the test images of all labels forgotten so far, and on those of the others; for retraining without
them and, with ``--union``, for one request in their place as well.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from figures import say

from split_unlearning.models.split import segment_with
from split_unlearning.simulations.data.loading import load
from split_unlearning.unlearning.gradient_projection.codec import Gradients
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.local_grid import LocalRun
from tests.state.bench import folders, learn, unlearn

CLIENTS, LABELS = 5, (2, 7, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--fine-tune-share", type=float, nargs="+", default=[0.1])
    parser.add_argument("--union", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for seed in range(arguments.seeds):
        settings = {
            "client_sync": "handoff",
            "distribution": "iid",
            "server_epochs": arguments.epochs,
            "learning_rate": arguments.learning_rate,
            "momentum": 0.9,
            "seed": seed,
        }
        projection = {
            **settings,
            "strategy": "gradient-projection",
            "unlearning": "gradient-projection",
        }
        found = {"retrain": at_once({**settings, "strategy": "vanilla"})}
        for share in arguments.fine_tune_share:
            shared = {**projection, "fine_tune_share": share}
            found[f"in a row, {share}"] = in_a_row(shared)
            if arguments.union:
                found[f"one union, {share}"] = at_once(shared)
        for name, rows in found.items():
            figures[f"seed {seed}, {name}"] = [f"{gone:.2f} / {kept:.3f}" for gone, kept in rows]
            print(f"seed {seed}, {name}: {figures[f'seed {seed}, {name}']}", flush=True)
    say(figures, arguments.json)


def in_a_row(settings: dict[str, Any]) -> list[tuple[float, float]]:
    """Learn, forget one label after the other; return the figures after each request."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, quiet(), redirect_stderr(StringIO()):
        path = Path(folder) / "state"
        learn(path, {**settings, "forget": ""}, CLIENTS)
        for done, label in enumerate(LABELS, start=1):
            asked = [(f"class:{label}", client) for client in range(CLIENTS)]
            run = unlearn(path, {**settings, "forget": ""}, *asked, nodes=CLIENTS)
            assert run is not None
            rows.append(accuracies(run, client_segment(path), LABELS[:done]))
    return rows


def client_segment(path: Path) -> Gradients:
    """Return the client segment that a state-dir keeps; after fine-tuning all hand on the same."""
    kept = TensorStore(folders(path)["client 0"]).load("segment")
    assert kept is not None
    return kept


def at_once(settings: dict[str, Any]) -> list[tuple[float, float]]:
    """Learn and forget the first label, the first two, and all; return the figures of each."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for done in range(1, len(LABELS) + 1):
            ids = Path(folder) / f"{done}.txt"
            gone = np.flatnonzero(np.isin(load("digits").y_train, LABELS[:done]))
            ids.write_text("\n".join(map(str, gone)), encoding="utf-8")
            with quiet(), redirect_stderr(StringIO()):
                run = LocalRun(CLIENTS, **settings, forget=f"ids:{ids}")
            rows.append(accuracies(run, run.client_state(0), LABELS[:done]))
    return rows


def quiet() -> redirect_stdout[StringIO]:
    return redirect_stdout(StringIO())


def accuracies(run: LocalRun, client_state: Gradients, gone: Sequence[int]) -> tuple[float, float]:
    """Return the accuracy on the test images of what is forgotten, and of the rest."""
    data = run.prepared.dataset
    shape = ("cnn", data.input_shape, data.num_classes)
    client = segment_with("client", *shape, client_state)
    server = segment_with("server", *shape, run.server_state).eval()
    x, y = data.test(np.arange(len(data.y_test)))
    with torch.no_grad():
        right = (server(client(x)).argmax(1) == y).float().numpy()
    about = np.isin(y.numpy(), gone)
    return float(right[about].mean()), float(right[~about].mean())


if __name__ == "__main__":
    main()
