"""What computing in bfloat16 gains on the server segment: samples a second, float32 beside it.

    python benchmarks/precision.py

Both precisions take the same training steps (forward, backward, optimiser) on random smashed data
of 32x32 images, in turns, so that what else the machine does meets both; of each the fastest step
counts. Printed is, for each model, how many times as many samples a second bfloat16 trains. The
seconds are the machine's, and no claim.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from figures import say

from split_unlearning.models.devices import device
from split_unlearning.models.split import smashed_shape
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.precision import PRECISIONS, Precision
from split_unlearning.strategies.server.segment import LocalSegment
from split_unlearning.strategies.server.setting import SegmentSetting

SHAPE, LABELS = (3, 32, 32), 10


def seconds(
    model: ServerModel, smashed: torch.Tensor, labels: torch.Tensor, where: torch.device
) -> float:
    """Return how long one step of training takes."""
    settle = partial(torch.cuda.synchronize, where) if where.type == "cuda" else lambda: None
    settle()
    started = time.perf_counter()
    model.train(smashed, labels)
    settle()
    return time.perf_counter() - started


def _model(name: str, training: TrainingSettings, precision: str) -> ServerModel:
    setting = SegmentSetting(
        name, SHAPE, LABELS, training, precision=cast(Precision, precision), on_gpu=True
    )
    return LocalSegment(setting).parts[ServerModel]


def measure(model: str, batch_size: int, steps: int, threads: int) -> dict[str, Any]:
    """Return the fastest step of each precision, as samples a second, and their ratio."""
    where = device()
    training = TrainingSettings(batch_size=batch_size, learning_rate=0.01, threads=threads)
    training.fix_kernels()
    torch.manual_seed(0)
    smashed = torch.randn(batch_size, *smashed_shape(model, SHAPE, LABELS)).relu()
    labels = torch.randint(0, LABELS, (batch_size,))
    segments = {precision: _model(model, training, precision) for precision in PRECISIONS}
    best = dict.fromkeys(segments, float("inf"))
    # The first of each chooses its kernels.
    for step in range(steps + 1):
        for precision, segment in segments.items():
            spent = seconds(segment, smashed, labels, where)
            if step:
                best[precision] = min(best[precision], spent)
    rates = {precision: batch_size / spent for precision, spent in best.items()}
    return {"samples_a_second": rates, "ratio": rates["bfloat16"] / rates["float32"]}


def main() -> None:
    """Measure, print a table and JSON, and write that if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="cnn,vgg,resnet18")
    parser.add_argument("--batch-sizes", default="64", help="separated by commas")
    parser.add_argument("--steps", type=int, default=30, help="of each precision, in turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"device": device().type, "threads": chosen.threads}
    print(f"{'model':<10} {'batch':>5} {'bfloat16 / float32':>19}")
    for model in chosen.models.split(","):
        for batch_size in map(int, chosen.batch_sizes.split(",")):
            found = measure(model, batch_size, chosen.steps, chosen.threads)
            figures[f"{model}, batch {batch_size}"] = found
            print(f"{model:<10} {batch_size:>5} {found['ratio']:>19.2f}", flush=True)
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
