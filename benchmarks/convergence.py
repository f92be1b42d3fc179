"""Descent on what is retained after a projection, beside the bound that it must keep: a picture.

    python benchmarks/convergence.py --plot docs/images/convergence.svg

As `tests/unlearning/gradient_projection/test_convergence.py`: 600 digits are learned, the 2s among
them projected out, then all retained samples are descended on at once, with a constant step η. For
a loss whose gradient changes by at most 1/η of the way, T steps have

    mean_{t<T} ||∇L||² <= 2 (L(start) - L(end)) / (η T),

which is O(1/T). Printed are both sides at some T; ``--plot`` draws them with matplotlib, which the
project itself does not need.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import say

from tests.unlearning.gradient_projection.test_convergence import RATE, descended, projected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    network, x, y, _, _ = projected()
    means, bounds = [], []
    total, start = 0.0, None
    for steps, (squared, before, after) in enumerate(descended(network, x, y, arguments.steps), 1):
        start = before if start is None else start
        total += squared
        means.append(total / steps)
        bounds.append(2 * (start - after) / (RATE * steps))
    if arguments.plot:
        draw(means, bounds, arguments.plot)
    chosen = [steps for steps in (1, 10, 40, 100, 400, 1000) if steps <= arguments.steps]
    say(
        {
            f"T={steps}": {"mean": round(means[steps - 1], 6), "bound": round(bounds[steps - 1], 6)}
            for steps in chosen
        },
        arguments.json,
    )


def draw(means: list[float], bounds: list[float], file: Path) -> None:
    """Draw both sides over T, both axes logarithmic, and what falls as 1/T."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "convergence"
    steps = range(1, len(means) + 1)
    figure, axes = plt.subplots(figsize=(6, 3.8))
    axes.loglog(steps, bounds, label="bound, 2 (L(start) - L(end)) / (η T)", linestyle="--")
    axes.loglog(steps, means, label="measured, mean of ||∇L||²")
    axes.loglog(steps, [bounds[-1] * len(bounds) / one for one in steps], "k:", label="1 / T")
    axes.set_xlabel("T, steps of descent after the projection")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
