"""Metrics that need several cells: a cell beside its retraining, attacked by its shadow runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from split_unlearning.evaluation.forgetting import ForgettingJudge
from split_unlearning.evaluation.outputs import FILE, read_outputs
from split_unlearning.foundations.files import write_json
from split_unlearning.reporting.result import Relearning, Result
from split_unlearning.simulations.benchmark.cell import Cell
from split_unlearning.simulations.benchmark.cells import planned_cells
from split_unlearning.simulations.benchmark.spec import shadowed

METRICS = "metrics.json"
SCHEMA_VERSION = 1


def measure(benchmark: Path) -> list[str]:
    """Write ``metrics.json`` for every cell whose clients were audited, where it is not there yet.

    Returns a line for each cell that could not be measured.
    """
    cells = [cell for cell in planned_cells(benchmark) if cell.status == "done"]
    audited = {cell.digest: cell for cell in cells if (cell.folder(benchmark) / FILE).exists()}
    failed = []
    for cell in audited.values():
        if cell.role == "target":
            try:
                _measure_one(cell, audited, benchmark)
            except (OSError, ValueError, LookupError) as error:
                failed.append(f"not measured: {cell.id}: {error}")
    return failed


def metrics_of(cell: Path, reference: Path | None, shadows: Sequence[Path]) -> dict[str, Any]:
    """Return what ``metrics.json`` holds of a run, from its folder and those of others.

    The reference is the same run with ``unlearning = "retrain"``; without shadow runs there is no
    attack. A figure for which something is missing is None.

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If a file does not hold what it should, or a shadow run saw a sample of the target.
    """
    result = Result.read(cell / "result.json")
    retrained = _relearned(Result.read(reference / "result.json")) if reference else {}
    judge = ForgettingJudge(
        read_outputs(cell / FILE),
        read_outputs(reference / FILE) if reference else {},
        [read_outputs(shadow / FILE) for shadow in shadows],
        _planted_label(result),
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "reference": reference.name if reference else None,
        "phases": [
            {
                "task": phase.task,
                "phase": phase.phase,
                "request": phase.request,
                **judge.phase(phase.task),
                "relearn": _beside(phase.relearn, retrained.get(phase.task)),
            }
            for phase in result.phases
        ],
    }


def _relearned(result: Result) -> dict[int, Relearning]:
    return {phase.task: phase.relearn for phase in result.phases if phase.relearn}


def _beside(target: Relearning | None, reference: Relearning | None) -> dict[str, Any] | None:
    if target is None:
        return None
    return {**dict(target), "reference_epochs": reference.epochs if reference else None}


def _planted_label(result: Result) -> int | None:
    """Return the label that a run's backdoor stands for; None without one."""
    name = str(result.config.get("backdoor", ""))
    if not name:
        return None
    names = list(result.phases[0].accuracy.per_label)
    return names.index(name) if name in names else int(name)


def _measure_one(cell: Cell, audited: Mapping[str, Cell], benchmark: Path) -> None:
    reference = next((one for one in audited.values() if one.id == cell.reference), None)
    shadows = []
    if cell.settings.get("shadow-share"):
        number = 1
        while shadow := audited.get(_shadow_of(cell, number).digest):
            shadows.append(shadow)
            number += 1
    read = [cell, *([reference] if reference else []), *shadows]
    stamps = {each.id: _stamp(each.folder(benchmark) / "result.json") for each in read}
    path = cell.folder(benchmark) / METRICS
    if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("read") == stamps:
        return
    metrics = metrics_of(
        cell.folder(benchmark),
        reference.folder(benchmark) if reference else None,
        [shadow.folder(benchmark) for shadow in shadows],
    )
    write_json(path, {**metrics, "read": stamps})


def _shadow_of(cell: Cell, number: int) -> Cell:
    return Cell(cell.clients, shadowed(cell.settings, number), cell.coordinates, "shadow")


def _stamp(path: Path) -> str:
    """Return a short hash of a result's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
