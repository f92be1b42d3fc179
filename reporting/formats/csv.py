"""A table as CSV: numbers as they were measured, to be read by programs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from split_unlearning.reporting.table import Column, Table


def to_csv(table: Table) -> str:
    """Return a table as comma-separated values.

    A number has its mean, in bytes, seconds, bits, or shares from 0 to 1, and, where several seeds
    measured any of the column, ``_sd``, the sample standard deviation, and ``_n``, how many. A text
    is written whole.
    """
    data: dict[str, Any] = {}
    for column in table.columns:
        found = table.frame[column.slug]
        if column.is_text:
            data[column.slug] = found.map(lambda one: _text(one.full or one.text), "ignore")
            continue
        name = _name(column)
        data[name] = pd.Series([_exact(one) for one in found], dtype=object)
        counts = table.frame[f"{column.slug}_n"]
        if not column.fixed and (counts > 1).any():
            data[f"{name}_sd"] = table.frame[f"{column.slug}_sd"]
            data[f"{name}_n"] = counts.where(counts > 0).astype("Int64")
    return str(pd.DataFrame(data).to_csv(index=False, lineterminator="\n"))


def _name(column: Column) -> str:
    says_its_unit = column.unit in ("", "count", "value") or column.unit in column.slug
    return column.slug if says_its_unit else f"{column.slug}_{column.unit}"


def _text(value: str) -> str:
    """Return a text without what readers of CSV take for the end of a line, or of the file."""
    return value.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


def _exact(value: float) -> object:
    """Return a whole number as such, and nothing for what was not measured."""
    if pd.isna(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else value
