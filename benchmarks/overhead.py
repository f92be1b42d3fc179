"""What the framework adds to the mathematics, by strategy, and what clients side by side gain.

    python benchmarks/overhead.py --data /absolute/path/to/cifar10-subset.npz

**A batch.** The app as a user starts it, on real Flower and Ray processes, with one client;
and the same network, batches and threads in one plain PyTorch loop (`plain_loop.py`). Reported is
the ratio of seconds a batch, and, apart from it, the seconds that a turn costs beyond its batches.
For gradient projection the plain loop writes every gradient to a file too; for SplitWiper both
train the server segment alone on smashed data that is there already. The plain loop is timed before
and after the app, in a process of its own: their difference shows how steady the machine is.

**Side by side.** SplitFed's rounds and SplitWiper's pre-training with as many clients at a time as
there are processors, and with one at a time: how many times as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from figures import say

PLAIN = Path(__file__).with_name("plain_loop.py")

SEQUENTIAL = {
    "vanilla": "whole",
    "u-shaped": "whole",
    "splitfed": "whole",
    "gradient-projection": "gradients",
    "splitwiper": "behind",
}
"""By strategy, which plain loop computes the same."""

WITHOUT_BATCH_NORM = "cnn"
"""The model for gradient projection, which refuses batch norm."""

PARALLEL = {"splitfed": "train", "splitwiper": "pretrain"}
"""By strategy, the question that is put to all clients at once."""

PRETRAIN_EPOCHS = 100
"""Side by side: a client segment trained alone is small, and a message takes its time too."""


def cut_down(source: Path, images: int, target: Path) -> None:
    """Write the first images of each label, so many in all, as a data set of its own."""
    with np.load(source) as data:
        labels = data["y_train"]
        per_label = images // len(data["class_names"])
        rows = np.concatenate([np.flatnonzero(labels == k)[:per_label] for k in np.unique(labels)])
        np.savez(
            target,
            x_train=data["x_train"][rows],
            y_train=labels[rows],
            x_test=data["x_test"][::40],
            y_test=data["y_test"][::40],
            class_names=data["class_names"],
        )


def model_for(chosen: argparse.Namespace, strategy: str) -> str:
    """Return the model that a strategy is measured with."""
    return WITHOUT_BATCH_NORM if strategy == "gradient-projection" else str(chosen.model)


def plain(data: Path, chosen: argparse.Namespace, strategy: str) -> float:
    """Return the seconds of a batch of the plain loop, in a process of its own."""
    kind, model = SEQUENTIAL[strategy], model_for(chosen, strategy)
    words = [data, model, chosen.batch_size, chosen.epochs, kind]
    command = [sys.executable, str(PLAIN), *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["batch_seconds"])


def learned(
    data: Path, chosen: argparse.Namespace, strategy: str, clients: int, cpus: int, **more: object
) -> Mapping[str, Any]:
    """Have the app learn as a user starts it, and return what it says of that phase."""
    settings = {
        "strategy": strategy,
        "dataset": f"npz:{data}",
        "model": model_for(chosen, strategy),
        "batch-size": chosen.batch_size,
        "server-epochs": chosen.epochs,
        "distribution": "iid",
        "forget": "",
        "learning-rate": 0.01,
        **more,
    }
    if strategy == "gradient-projection":
        settings["unlearning"] = strategy
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from simulations.cli import main; main()", "run"]
        command += ["--clients", str(clients), "--client-cpus", str(cpus), "--out", folder + "/out"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        subprocess.run(command, check=True, cwd=PLAIN.parents[1], stdout=subprocess.DEVNULL)
        result = json.loads((Path(folder) / "out" / "result.json").read_text(encoding="utf-8"))
    phase: Mapping[str, Any] = result["phases"][0]
    return phase


def a_batch(strategy: str, phase: Mapping[str, Any], batches: int) -> dict[str, float]:
    """Return the seconds of a batch, who computes in them, and those of a turn beyond them."""
    if strategy == "splitwiper":
        return {"batch_seconds": phase["server"]["train_seconds"] / batches}
    link, turns = phase["timing"]["link"], phase["timing"]["questions"]["train"]
    return {
        "batch_seconds": link["seconds"] / link["batches"],
        "server_computes": phase["server"]["train_seconds"] / link["seconds"],
        "client_computes": phase["clients"][0]["train_seconds"] / link["seconds"],
        "turn_seconds_beyond_batches": (turns["seconds"] - link["seconds"]) / turns["times"],
    }


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="an npz data set")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--model", default="vgg")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    started = time.perf_counter()
    figures: dict[str, Any] = {
        name: getattr(chosen, name) for name in ("images", "model", "batch_size", "epochs")
    }
    cpus = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        cut_down(chosen.data, chosen.images, data)
        batches = chosen.epochs * -(-chosen.images // chosen.batch_size)
        figures["one client"] = {}
        for strategy in SEQUENTIAL:
            before = plain(data, chosen, strategy)
            found = a_batch(strategy, learned(data, chosen, strategy, 1, 1), batches)
            after = plain(data, chosen, strategy)
            found["ratio_a_batch"] = found["batch_seconds"] / ((before + after) / 2)
            found |= {"plain_before": before, "plain_after": after}
            print(strategy, json.dumps(found), file=sys.stderr)
            figures["one client"][strategy] = found
        figures["side by side"] = {"at_a_time": cpus}
        for strategy, question in PARALLEL.items():
            more = {"pretrain-epochs": PRETRAIN_EPOCHS}
            alone, together = (
                learned(data, chosen, strategy, 2 * cpus, each, **more)["timing"]["questions"]
                for each in (cpus, 1)
            )
            gain = alone[question]["seconds"] / together[question]["seconds"]
            figures["side by side"][strategy] = gain
    figures["seconds_in_all"] = time.perf_counter() - started
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
