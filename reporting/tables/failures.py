"""Cells that failed or are missing, and why."""

from __future__ import annotations

from split_unlearning.reporting.benchmark import Benchmark, Failure
from split_unlearning.reporting.cells import Cell
from split_unlearning.reporting.groups import shown, varying
from split_unlearning.reporting.table import Column, Table, make_table
from split_unlearning.reporting.values import Label, Value


def failures_table(benchmark: Benchmark) -> Table:
    """Return a row for each cell that failed, is missing, or has no reference."""
    axes = varying(benchmark.cells, benchmark.axes)
    listed = [*benchmark.failures, *map(_without_reference, benchmark.unreferenced)]
    known = {key for failure in listed for key in failure.coordinates}
    kept = [*(axis for axis in axes if axis in known), *_others(benchmark, axes)]
    rows: list[tuple[Value, ...]] = [
        (
            Label(failure.id),
            *(
                shown(failure.coordinates[axis]) if axis in failure.coordinates else None
                for axis in kept
            ),
            None if failure.seed is None else Label(str(failure.seed)),
            Label("shadow" if failure.shadow else "target"),
            Label(failure.error),
        )
        for failure in listed
    ]
    nothing = [None] * (len(kept) + 2)
    rows += [
        (Label(name), *nothing, Label("planned, and has not ended")) for name in benchmark.missing
    ]
    columns = (
        Column("cell", "cell"),
        *(Column(axis, axis) for axis in kept),
        Column("seed", "seed"),
        Column("role", "role"),
        Column("error", "what happened"),
    )
    return make_table(
        "failures", "Failed and missing cells, and cells without a reference", columns, rows
    )


def _without_reference(cell: Cell) -> Failure:
    missing = "no finished cell retrains with the same settings: there is no distance to it"
    return Failure(cell.id, cell.coordinates, cell.seed, False, missing)


def _others(benchmark: Benchmark, axes: tuple[str, ...]) -> list[str]:
    """Return the axes on which failed cells alone differ from the others."""
    keys = sorted({key for failure in benchmark.failures for key in failure.coordinates})
    done = {key: {str(cell.coordinates.get(key)) for cell in benchmark.cells} for key in keys}
    return [
        key
        for key in keys
        if key not in axes
        and any(
            str(failure.coordinates.get(key)) not in done[key] for failure in benchmark.failures
        )
    ]
