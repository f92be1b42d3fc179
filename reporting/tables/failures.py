"""What is not there to be shown, and why."""

from __future__ import annotations

from split_unlearning.reporting.benchmark import Benchmark, Failure
from split_unlearning.reporting.groups import shown, varying
from split_unlearning.reporting.table import Column, Label, Table, Value


def failures_table(benchmark: Benchmark) -> Table:
    """Return a row for each cell that failed, or is missing."""
    axes = varying(benchmark.cells, benchmark.axes)
    known = {key for failure in benchmark.failures for key in failure.coordinates}
    columns = (
        Column("cell", "cell"),
        *(Column(axis, axis) for axis in axes if axis in known),
        *(Column(axis, axis) for axis in _others(benchmark, axes)),
        Column("seed", "seed"),
        Column("role", "role"),
        Column("error", "what happened"),
    )
    rows = [_row(failure, columns) for failure in benchmark.failures]
    rows += [
        tuple(
            {"cell": Label(name), "error": Label("planned, and has not ended")}.get(column.slug)
            for column in columns
        )
        for name in benchmark.missing
    ]
    return Table("failures", "Failed and missing cells", columns, tuple(rows)).shown()


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


def _row(failure: Failure, columns: tuple[Column, ...]) -> tuple[Value, ...]:
    fixed = {
        "cell": Label(failure.id),
        "seed": None if failure.seed is None else Label(str(failure.seed)),
        "role": Label("shadow" if failure.shadow else "target"),
        "error": Label(failure.error),
    }
    return tuple(
        fixed[column.slug]
        if column.slug in fixed
        else shown(failure.coordinates[column.slug])
        if column.slug in failure.coordinates
        else None
        for column in columns
    )
