"""The tables that the SplitWiper paper published, as data."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

PUBLISHED = ("client_time", "label_accuracy", "membership_hit_rate", "sample_level_accuracy")
SETTING = ["model", "distribution", "dataset"]

Row = dict[str, str]


@cache
def published(name: str) -> pd.DataFrame:
    """Return a published table, one of `PUBLISHED`: texts, and numbers in the last columns."""
    path = files("split_unlearning.reporting.published") / f"{name}.csv"
    with path.open(encoding="utf-8") as lines:
        return pd.read_csv(lines, dtype={"delta": str})


def lookup(name: str, **where: str) -> pd.Series | None:
    """Return the published row with these values by column; None if the paper has none."""
    table = published(name)
    found = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    return None if found.empty else found.iloc[0]


def by_framework(name: str, column: str, **where: str) -> pd.DataFrame:
    """Return a published column, a row a setting and a column a framework."""
    table = published(name)
    found = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    return found.pivot(index=SETTING, columns="framework", values=column)
