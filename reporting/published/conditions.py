"""When a verdict on a claim of the SplitWiper paper means something.

Three conditions: the benchmark's spec says that its runs can judge the claim, nobody has changed
what the spec sets, and the networks have learned.
"""

from __future__ import annotations

from dataclasses import replace

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Cell
from split_unlearning.reporting.published.terms import (
    dataset,
    differences,
    forgotten,
    has_data_of_the_paper,
)
from split_unlearning.reporting.results import Results

LEARNED = 0.1
"""A network has learned if its accuracy is this part of the way from guessing to 100 %, or more."""

CLAIMS = (
    "training-cost",
    "transmission-cost",
    "others-pay-nothing",
    "label-gone",
    "retained-accuracy",
    "hit-rate",
    "hidden-labels",
)
"""What a spec calls the claims."""

# What the paper itself varies, and `differences` knows.
_OF_THE_PAPER = {"dataset", "forget", "server-epochs"}
# Where things are, how long they may take, and which draws are made.
_MAY_CHANGE = {
    "data-dir",
    "download",
    "round-timeout",
    "seed",
    "server-num-cpus",
    "server-num-gpus",
    "threads",
}


def learned(results: Results) -> tuple[Results, str]:
    """Return the rows whose networks have learned, and what is to be said of the others."""
    kept, others = [], []
    for group in results.groups:
        accuracy = results.of(group, 0, "accuracy/retained")
        guessing = guess(group.cells[0])
        if accuracy is not None and accuracy.mean >= guessing + LEARNED * (1 - guessing):
            kept.append(group)
        else:
            others.append((group, accuracy.mean if accuracy else None, guessing))
    cells = [cell for group in kept for cell in group.cells]
    known = {cell.id for cell in cells}
    of_them = tuple(cell for cell in results.benchmark.cells if cell.id in known)
    said = ""
    if others:
        group, mean, guessing = min(others, key=lambda one: one[1] or 0.0)
        reached = "not measured" if mean is None else f"{100 * mean:.1f} %"
        count = f"{len(others)} of {len(results.groups)} rows are"
        said = (
            f"{count} left out, because their network has not learned: retained accuracy of "
            f"{group.name().text} after learning is {reached}, and guessing gives "
            f"{100 * guessing:.1f} %"
        )
    return Results(replace(results.benchmark, cells=of_them), tuple(kept)), said


def guess(cell: Cell) -> float:
    """Return the accuracy of guessing: each client names the label that it holds most of."""
    if cell.distribution is None:
        return 1 / max(len(cell.labels), 1)
    held = cell.distribution.train
    return sum(map(max, held)) / max(sum(map(sum, held)), 1)


def missing(benchmark: Benchmark, name: str) -> str:
    """Say which condition is missing for a verdict on a claim; nothing if none is."""
    if name not in benchmark.claims:
        reduced = f", reduced as it is ({'; '.join(benchmark.reduced)})" * bool(benchmark.reduced)
        return f"the spec does not say (claims) that its runs can judge this{reduced}"
    changed = set(benchmark.changed) - _MAY_CHANGE
    differ = changed - _OF_THE_PAPER
    if not differ and not any(_differs(benchmark, cell, changed) for cell in benchmark.cells):
        return ""
    keys = ", ".join(sorted(differ or changed))
    return f"the spec says that its own settings can judge this, but --set changed {keys}"


def _differs(benchmark: Benchmark, cell: Cell, changed: set[str]) -> bool:
    """Return whether changes of `_OF_THE_PAPER` led away from the paper's experiments."""
    if changed <= {"dataset"}:
        return bool(changed) and not has_data_of_the_paper(cell)
    phase = cell.phase(1)
    meant = forgotten(phase.request, cell.labels) if phase else None
    label = meant.label if meant else None
    differ = differences(benchmark, cell, dataset(benchmark, cell), label)
    return bool(differ) or not has_data_of_the_paper(cell)
