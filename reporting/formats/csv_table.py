"""A table as CSV: numbers as they were measured, to be read by programs."""

from __future__ import annotations

import csv
from io import StringIO

from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Label, Table


def to_csv(table: Table) -> str:
    """Return a table as comma-separated values.

    A number has its mean, in bytes, seconds, bits, or shares from 0 to 1, and, where several seeds
    measured any of the column, ``_sd``, the sample standard deviation, and ``_n``, how many. A text
    is written whole.
    """
    sink = StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    spread = [_is_spread(table, place) for place in range(len(table.columns))]
    header = []
    for column, wide in zip(table.columns, spread, strict=True):
        name = _name(column)
        header += [name, f"{name}_sd", f"{name}_n"] if wide else [name]
    writer.writerow(header)
    for row in table.rows:
        values: list[object] = []
        for value, wide in zip(row, spread, strict=True):
            if isinstance(value, Summary):
                deviation = "" if value.deviation is None else value.deviation
                values += (
                    [_exact(value.mean), deviation, value.count] if wide else [_exact(value.mean)]
                )
            else:
                shown = _text(value.full or value.text) if isinstance(value, Label) else ""
                values += [shown, "", ""] if wide else [shown]
        writer.writerow(values)
    return sink.getvalue()


def _is_spread(table: Table, place: int) -> bool:
    return not table.columns[place].fixed and any(
        isinstance(value := row[place], Summary) and value.count > 1 for row in table.rows
    )


def _name(column: Column) -> str:
    says_its_unit = column.unit in ("", "count", "value") or column.unit in column.slug
    return column.slug if says_its_unit else f"{column.slug}_{column.unit}"


def _text(value: str) -> str:
    """Return a text without what readers of CSV take for the end of a line, or of the file."""
    return value.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


def _exact(value: float) -> object:
    return int(value) if value == int(value) and abs(value) < 2**53 else value
