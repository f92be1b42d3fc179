"""A table as Markdown (GitHub's), to be pasted into an issue or a README."""

from __future__ import annotations

import re

from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import BETTER, Label, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&-])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def to_markdown(table: Table) -> str:
    """Return a table with its title and notes; the best number of a column is bold."""
    table = table.for_people()
    places = range(len(table.columns))
    header = [_header(table, place) for place in places]
    rule = [":---" if table.columns[place].is_text else "---:" for place in places]
    best = [table.best(place) for place in places]
    lines = [f"**{escaped(table.title)}**", "", _line(header), _line(rule)]
    for number, row in enumerate(table.rows):
        cells = []
        for place, value in enumerate(row):
            if isinstance(value, Summary):
                style = table.style(place)
                shown = style.mean(value.mean).replace("-", "\u2212")
                if value.deviation is not None and not value.is_nothing:
                    shown += f" ± {style.deviation(value.deviation)}"
                cells.append(f"**{shown}**" if number in best[place] else shown)
            else:
                cells.append(escaped(value.text) if isinstance(value, Label) else "-")
        lines.append(_line(cells))
    notes = [escaped(note) for note in table.notes]
    return "\n\n".join(["\n".join(lines), *notes]) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", _CONTROL.sub(" ", text))


def _header(table: Table, place: int) -> str:
    better = table.columns[place].better
    said = f" ({BETTER[better]})" if better else ""
    return escaped(table.header(place)) + said


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
