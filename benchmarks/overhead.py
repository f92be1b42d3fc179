"""What the framework adds to the mathematics: vanilla split learning against a plain loop.

    python benchmarks/overhead.py --data /absolute/path/to/cifar10-subset.npz

One run measures both: the app, as a user starts it, on real Flower, Ray and gRPC processes; and the
same network, batches and threads in one plain PyTorch loop. Reported are the ratio of seconds a
batch, and, apart from it, the seconds that a turn costs beyond its batches. The plain loop is timed
before and after the app, in a process of its own: their difference shows how steady the machine is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import say

PLAIN = Path(__file__).with_name("plain_loop.py")


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


def plain(data: Path, model: str, batch_size: int, epochs: int) -> dict[str, float]:
    """Time the plain loop in a process of its own."""
    command = [sys.executable, str(PLAIN), str(data), model, str(batch_size), str(epochs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def app(data: Path, model: str, batch_size: int, epochs: int, out: Path) -> dict[str, float]:
    """Time the app, as a user starts it."""
    settings = {
        "strategy": "vanilla",
        "dataset": f"npz:{data}",
        "model": model,
        "batch-size": batch_size,
        "server-epochs": epochs,
        "distribution": "iid",
        "forget": "",
        "learning-rate": 0.01,
    }
    command = [sys.executable, "-c", "from simulations.cli import main; main()", "run"]
    command += ["--clients", "1", "--out", str(out)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, cwd=PLAIN.parents[1], stdout=subprocess.DEVNULL)
    phase = json.loads((out / "result.json").read_text(encoding="utf-8"))["phases"][0]
    link, turns = phase["timing"]["link"], phase["timing"]["questions"]["train"]
    return {
        "batches": link["batches"],
        "batch_seconds": link["seconds"] / link["batches"],
        "server_share": phase["server"]["train_seconds"] / link["seconds"],
        "client_share": phase["clients"][0]["train_seconds"] / link["seconds"],
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
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        cut_down(chosen.data, chosen.images, data)
        setting = (data, chosen.model, chosen.batch_size, chosen.epochs)
        started = time.perf_counter()
        before = plain(*setting)
        split = app(*setting, Path(folder) / "out")
        after = plain(*setting)
    loop = (before["batch_seconds"] + after["batch_seconds"]) / 2
    figures = {
        "images": chosen.images,
        "model": chosen.model,
        "batch_size": chosen.batch_size,
        "epochs": chosen.epochs,
        "plain_batch_seconds": [before["batch_seconds"], after["batch_seconds"]],
        "app_batch_seconds": split["batch_seconds"],
        "ratio_a_batch": split["batch_seconds"] / loop,
        "share_of_a_batch": {
            "server_computes": split["server_share"],
            "client_computes": split["client_share"],
        },
        "turn_seconds_beyond_batches": split["turn_seconds_beyond_batches"],
        "seconds_in_all": time.perf_counter() - started,
    }
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
