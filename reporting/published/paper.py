"""The tables that the SplitWiper paper published, as data."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

PUBLISHED = ("client_time", "label_accuracy", "membership_hit_rate", "sample_level_accuracy")

Row = dict[str, str]


@cache
def published(name: str) -> tuple[Row, ...]:
    """Return the rows of a published table, one of `PUBLISHED`."""
    path = files("split_unlearning.reporting.published") / f"{name}.csv"
    with path.open(encoding="utf-8") as lines:
        return tuple(csv.DictReader(lines))


def lookup(name: str, **where: str) -> Row | None:
    """Return the published row with these values by column; None if the paper has none."""
    return next(
        (row for row in published(name) if all(row[key] == value for key, value in where.items())),
        None,
    )
