"""A table as Markdown (GitHub's), to be pasted into an issue or a README.

Styler has no Markdown, and ``DataFrame.to_markdown`` needs a further package.
"""

from __future__ import annotations

import re

from split_unlearning.reporting.formats.shown import Marks, shown
from split_unlearning.reporting.table import BETTER, Column, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&-])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MARKS = Marks(
    text=lambda label: escaped(label.text),
    best="**{}**",
    minus="\u2212",
    spread=lambda deviation, _: f" ± {deviation}" if deviation else "",
    missing="-",
)


def to_markdown(table: Table) -> str:
    """Return a table with its title and notes; the best number of a column is bold."""
    columns = table.for_people
    lines = [
        [_header(table, column) for column in columns],
        [":---" if column.is_text else "---:" for column in columns],
        *shown(table, _MARKS).values.tolist(),
    ]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([f"**{escaped(table.title)}**", rows, *map(escaped, table.notes)]) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", _CONTROL.sub(" ", text))


def _header(table: Table, column: Column) -> str:
    name = f"{column.group}: {column.name}" if column.group else column.name
    unit = "" if column.is_text else table.style(column).unit
    better = f" ({BETTER[column.better]})" if column.better else ""
    return escaped(f"{name}, {unit}" if unit else name) + better
