"""How well gradient projection forgets, beside retraining and the other methods.

    python benchmarks/projection.py --data /absolute/path/to/fashion-mnist-subset.npz

Five clients (``iid``) hold some images between them and hand the client segment on. Forgotten are

- ``class``: all images of one label;
- ``half``: half of the images of that label;
- ``backdoor``: a twentieth of all images, which have a white square in a corner and a wrong label.

Every method goes on from the same learning. Reported for each, as a mean over the seeds:

- forgotten: accuracy on the test images of the label; of a backdoor, how often the square makes a
  test image that label;
- test: accuracy on all test images (of ``class``: on those of the other labels);
- membership: area under the curve of telling forgotten images from test images of their kind by
  their loss; 0.5 for who cannot;
- distance: mean Jensen-Shannon divergence of the outputs on the test images from those of
  retraining, in bits;
- evaluations: gradients of samples that were taken on the server to forget, over those of
  retraining;
- cache: bytes of the server's gradient cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from figures import say
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import roc_auc_score

from models.split import segment_with
from simulations.data.backdoor import triggered
from simulations.data.partition import Plan
from simulations.data.sources import Dataset, load
from strategies.server_segment import ServerSegment
from tests.local_grid import LocalRun, dealt

CLIENTS, LABEL = 5, 2
PROJECTION = {"strategy": "gradient-projection", "unlearning": "gradient-projection"}
PAPER = {"strategy": "gradient-projection", "unlearning": "gradient-projection-paper"}
METHODS: dict[str, dict[str, Any]] = {
    "retrain": {"strategy": "vanilla", "unlearning": "retrain"},
    "original": {"strategy": "vanilla", "unlearning": "none"},
    "fine-tune": {"strategy": "vanilla", "unlearning": "fine-tune"},
    "ascent": {"strategy": "vanilla", "unlearning": "gradient-ascent"},
    "paper, none": {**PAPER, "projection_variant": "none"},
    "paper, raw": {**PAPER, "projection_variant": "raw"},
    "projection": PROJECTION,
    "projection, int8": {**PROJECTION, "cache_codec": "int8"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="absolute path of an npz file, or digits")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scenarios", nargs="+", default=["class", "half", "backdoor"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    name = arguments.data if arguments.data == "digits" else f"npz:{arguments.data}"
    figures = {}
    for scenario in arguments.scenarios:
        rows: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
        for seed in range(arguments.seeds):
            for method, row in one_seed(name, scenario, seed, arguments).items():
                rows[method].append(row)
        for method, found in rows.items():
            figures[f"{scenario}: {method}"] = {
                key: round(fmean(row[key] for row in found), 3) for key in found[0]
            }
            print(f"{scenario}: {method}: {figures[f'{scenario}: {method}']}", flush=True)
    say(figures, arguments.json)


def one_seed(
    name: str, scenario: str, seed: int, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Run every method on one scenario; return its figures."""
    data, forgotten, probe = planted(load(name), scenario, seed, arguments.images)
    drawn = np.random.default_rng(seed).permutation(len(data.y_train))
    parts = tuple(np.sort(part) for part in np.array_split(drawn, CLIENTS))
    tests = tuple(np.array_split(np.arange(len(data.y_test)), CLIENTS))
    found, reference, whole = {}, None, 1
    with tempfile.TemporaryDirectory() as folder, dealt(data, Plan(parts, tests)):
        ids = Path(folder) / "ids.txt"
        ids.write_text("\n".join(map(str, forgotten)), encoding="utf-8")
        for method, settings in METHODS.items():
            run, evaluations = carried_out(
                forget=f"ids:{ids}",
                client_sync="handoff",
                server_epochs=arguments.epochs,
                learning_rate=arguments.learning_rate,
                momentum=arguments.momentum,
                seed=seed,
                **settings,
                # As long as the fine-tuning of the projection.
                **fine_tuned(settings, arguments.epochs),
            )
            row, outputs = measured(run, data, scenario, forgotten, probe)
            if reference is None:
                reference, whole = outputs, evaluations
            divergences = jensenshannon(outputs, reference, axis=1, base=2) ** 2
            cached = run.phases[-1]["server"]["cache_bytes"]
            found[method] = {
                **row,
                "distance": float(np.nan_to_num(divergences).mean()),
                "evaluations": evaluations / whole,
                "cache_mb": cached / 1e6,
            }
            print(f"  {scenario}, seed {seed}, {method}: {found[method]}", flush=True)
    return found


def fine_tuned(settings: Mapping[str, Any], epochs: int) -> dict[str, int]:
    """Return the epochs of the methods that have keys for them."""
    if settings["unlearning"] == "fine-tune":
        return {"fine_tune_epochs": max(1, epochs // 5)}
    if settings["unlearning"] == "gradient-ascent":
        return {"ascent_epochs": 1, "fine_tune_epochs": max(1, epochs // 10)}
    return {}


def planted(
    data: Dataset, scenario: str, seed: int, images: int
) -> tuple[Dataset, NDArray[np.int64], Dataset]:
    """Return some of the images, the ids of those to forget, and a data set to probe with."""
    drawn = np.random.default_rng(1000 + seed)
    some = drawn.permutation(len(data.y_train))[:images]
    x, y = data.x_train[some].copy(), data.y_train[some].copy()
    if scenario == "backdoor":
        wrong = np.flatnonzero(y != LABEL)
        forgotten = np.sort(drawn.choice(wrong, images // 20, replace=False))
        x[forgotten], y[forgotten] = marked(x[forgotten], data.largest), LABEL
        probe = dataclasses.replace(data, x_test=marked(data.x_test, data.largest))
    else:
        forgotten = np.flatnonzero(y == LABEL)
        if scenario == "half":
            forgotten = np.sort(drawn.choice(forgotten, len(forgotten) // 2, replace=False))
        probe = data
    return dataclasses.replace(data, x_train=x, y_train=y), forgotten, probe


def marked(images: NDArray[Any], largest: float) -> NDArray[Any]:
    """Return the images, as they are stored, with the trigger that a run with a backdoor plants."""
    white = triggered(torch.full(images.shape, -1.0)).numpy() > 0
    return np.where(white, images.dtype.type(largest), images)


def carried_out(**settings: Any) -> tuple[LocalRun, int]:
    """Run the app; return the run and how many samples' gradients the server took to forget."""
    answer, taken = ServerSegment.answer, []

    def counted(segment: Any, caller: Any, tensors: Any, fields: Any) -> Any:
        if caller.phase == "unlearn":
            taken.append(len(tensors["smashed"]))
        return answer(segment, caller, tensors, fields)

    quiet = StringIO()
    with (
        patch.object(ServerSegment, "answer", counted),
        redirect_stdout(quiet),
        redirect_stderr(quiet),
    ):
        return LocalRun(CLIENTS, **settings), sum(taken)


def measured(
    run: LocalRun, data: Dataset, scenario: str, forgotten: NDArray[np.int64], probe: Dataset
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return what is to be known of a run's last weights, and their outputs on the test images."""
    shape = ("cnn", data.input_shape, data.num_classes)
    client = segment_with("client", *shape, run.client_state(0))
    server = segment_with("server", *shape, run.server_state).eval()

    def outputs(samples: tuple[torch.Tensor, torch.Tensor]) -> tuple[NDArray[np.float64], Any]:
        with torch.no_grad():
            logits = torch.cat([server(client(part)) for part in samples[0].split(500)])
        return logits.double().softmax(1).numpy(), samples[1].numpy()

    everything = np.arange(len(data.y_test))
    clean, labels = outputs(data.test(everything))
    probed, _ = outputs(probe.test(everything))
    backdoor = scenario == "backdoor"
    about = labels != LABEL if backdoor else labels == LABEL
    members, _ = outputs(data.train(forgotten))
    # High where the loss is low, of forgotten images and of test images of their kind.
    confidence = np.concatenate([members[:, LABEL], probed[about, LABEL]])
    is_member = np.repeat([1, 0], [len(members), int(about.sum())])
    kept = labels != LABEL if scenario == "class" else np.ones(len(labels), dtype=bool)
    return {
        "forgotten": float((probed[about].argmax(1) == LABEL).mean()),
        "test": float((clean.argmax(1) == labels)[kept].mean()),
        "membership": float(roc_auc_score(is_member, confidence)),
    }, clean


if __name__ == "__main__":
    main()
