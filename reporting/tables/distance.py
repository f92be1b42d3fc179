"""How far a model that has forgotten is from one that was retrained without what it forgot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Cell, Phase
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Table
from split_unlearning.reporting.tables.rows import Measured, phases, tabulate

_NOTES = (
    "Accuracy: points above the model that was retrained with the same seed. Outputs: mean "
    "Jensen-Shannon divergence between the two models' predictions, 0 where they say the same, 1 "
    "bit where they never agree.",
)
_RELEARN = (
    "Relearning: epochs of the server segment alone until the forgotten samples are right as often "
    "as before; a model that has forgotten needs as many as the retrained one. Nothing where the "
    "run's number of epochs was not enough.",
)
_BACKDOOR = (
    "Backdoor: share of triggered test samples that are taken for the planted label; planted in "
    "what is then forgotten.",
)


def distance_tables(benchmark: Benchmark, groups: Sequence[Group]) -> list[Table]:
    """Return a table for each request of which anything was compared with a retrained model."""
    found = [
        _table(benchmark, groups, task, called) for task, called in phases(groups).items() if task
    ]
    return [table for table in found if table.measures]


def _table(benchmark: Benchmark, groups: Sequence[Group], task: int, called: str) -> Table:
    measured: list[Measured] = []
    for name in ("forgotten", "retained"):
        column = Column(
            f"accuracy_{name}_gap", name, "accuracy - retrained's", "share", "zero", signed=True
        )
        measured.append((column, partial(_gap, benchmark=benchmark, task=task, name=name)))
    for name in ("forgotten", "retained", "test"):
        column = Column(f"divergence_{name}_bits", name, "outputs", "bits", "lower")
        measured.append((column, partial(_of, task=task, kind="divergence", name=name)))
    for name, said in (("epochs", "this model"), ("reference_epochs", "retrained")):
        column = Column(f"relearn_{name}", said, "epochs to relearn", "count")
        measured.append((column, partial(_of, task=task, kind="relearn", name=name)))
    for name, said in (
        ("success_before", "before"),
        ("success", "after"),
        ("reference_success", "retrained"),
    ):
        column = Column(f"backdoor_{name}", said, "backdoor", "share")
        measured.append((column, partial(_of, task=task, kind="backdoor", name=name)))
    slugs = {
        column.slug.partition("_")[0]
        for column, measure in measured
        if any(measure(group) is not None for group in groups)
    }
    notes = (
        *_NOTES,
        *(_RELEARN if "relearn" in slugs else ()),
        *(_BACKDOOR if "backdoor" in slugs else ()),
    )
    title = f"Distance to the retrained model after {called}"
    slug = f"distance-request-{task}"
    return tabulate(slug, title, groups, measured, notes, only_measured=True)


def accuracy_gap(benchmark: Benchmark, cell: Cell, task: int, name: str) -> float | None:
    """Return how much more accurate a cell is than the one that was retrained.

    Parameters
    ----------
    benchmark : Benchmark
        Where that one is.
    cell : Cell
        Whose accuracy it is.
    task : int
        After which task.
    name : str
        ``forgotten`` or ``retained``.

    Returns
    -------
    float or None
        A share; None where either is not there.
    """
    reference = benchmark.reference(cell)
    ours = cell.phase(task)
    theirs = reference.phase(task) if reference else None
    if ours is None or theirs is None:
        return None
    mine, aim = getattr(ours, name), getattr(theirs, name)
    return None if mine is None or aim is None else mine - aim


def _gap(group: Group, benchmark: Benchmark, task: int, name: str) -> Summary | None:
    return group.summary(lambda cell: accuracy_gap(benchmark, cell, task, name))


def _of(group: Group, task: int, kind: str, name: str) -> Summary | None:
    def measure(phase: Phase) -> float | None:
        found: Mapping[str, float] = getattr(phase, kind)
        return found.get(name)

    return group.of_phase(task, measure)
