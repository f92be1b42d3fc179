"""Metrics that need several cells: a cell beside its retraining, attacked by its shadow runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from split_unlearning.evaluation.forgetting import metrics_of
from split_unlearning.evaluation.outputs import FILE
from split_unlearning.foundations.files import write_json
from split_unlearning.simulations.benchmark.cell import Cell
from split_unlearning.simulations.benchmark.cells import planned_cells
from split_unlearning.simulations.benchmark.spec import retrained, shadowed

METRICS = "metrics.json"


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


def _measure_one(cell: Cell, audited: Mapping[str, Cell], benchmark: Path) -> None:
    beside = Cell(cell.clients, retrained(cell.settings), cell.coordinates)
    reference = audited.get(beside.digest)
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
