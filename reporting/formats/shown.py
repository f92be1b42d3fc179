"""A table as the texts that people read: the same for HTML, LaTeX and Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from split_unlearning.reporting.table import Column, Table
from split_unlearning.reporting.values import Label


@dataclass(frozen=True)
class Marks:
    """How a format writes a text, the best number, a minus, a deviation, and what is missing.

    `spread` is given a deviation, perhaps empty, and the most letters that one of its column has;
    `few` is given in how many of the row's seeds a number was measured, where not in all.
    """

    text: Callable[[Label], str]
    best: str
    minus: str
    spread: Callable[[str, int], str]
    missing: str
    few: str = ""


def shown(table: Table, marks: Marks) -> pd.DataFrame:
    """Return what stands in each cell; a column is a pair of its group and its slug."""
    seeds = table.seeds()
    data = {
        (column.group, column.slug): [
            marks.missing if one is None else marks.text(one) for one in table.frame[column.slug]
        ]
        if column.is_text
        else _numbers(table, column, seeds, marks)
        for column in table.for_people
    }
    return pd.DataFrame(data, columns=pd.MultiIndex.from_tuples(data), dtype=object)


def _numbers(table: Table, column: Column, seeds: pd.Series, marks: Marks) -> list[str]:
    style, best = table.style(column), table.best(column)
    means, deviations, counts = (table.frame[f"{column.slug}{kind}"] for kind in ("", "_sd", "_n"))
    spreads = [
        "" if pd.isna(one) or mean == one == 0 else style.deviation(one)
        for mean, one in zip(means, deviations, strict=True)
    ]
    # That every seed counts as many need not be said.
    if column.unit == "count" and not deviations.any():
        spreads = [""] * len(spreads)
    width = max(map(len, spreads))
    cells = []
    for row, (mean, spread, count) in enumerate(zip(means, spreads, counts, strict=True)):
        if pd.isna(mean):
            cells.append(marks.missing)
            continue
        number = style.mean(mean).replace("-", marks.minus)
        if row in best:
            number = marks.best.format(number)
        if width:
            number += marks.spread(spread, width)
        if not column.fixed and count < seeds[row]:
            number += marks.few.format(count, seeds[row])
        cells.append(number)
    return cells
