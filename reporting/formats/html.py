"""A table as HTML, by pandas' Styler."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup, escape

from split_unlearning.reporting.formats.shown import Marks, shown
from split_unlearning.reporting.table import BETTER, Column, Table
from split_unlearning.reporting.values import Label, printable

_LONG = 40  # a text of more letters may be broken into lines
_FIGURE_SPACE = "\u2007"  # as wide as a digit


def _text(label: Label) -> str:
    text = escape(printable(label.text))
    if label.full and label.full != label.text:
        text = Markup('<abbr title="{}">{}</abbr>').format(printable(label.full), text)
    if label.tone:
        text = Markup('<span class="verdict {}">{}</span>').format(label.tone, text)
    return str(text)


def _spread(deviation: str, width: int) -> str:
    # As wide in all rows, so that the means stand below each other.
    text = f"± {deviation}" if deviation else ""
    return f'<span class="sd">{text.ljust(width + 2, _FIGURE_SPACE)}</span>'


_MARKS = Marks(
    text=_text,
    best="<strong>{}</strong>",
    minus="\u2212",
    spread=_spread,
    missing='<span class="none">-</span>',
    few='<sup><abbr title="measured in {0} of {1} seeds">{0}</abbr></sup>',
)


def to_html(table: Table) -> Markup:
    """Return a table with its caption; the best number of a column is bold."""
    frame = shown(table, _MARKS)
    columns = {column.slug: column for column in table.for_people}
    groups = {column.group: _group(table, column.group) for column in columns.values()}
    classes = {(column.group, slug): _classes(table, column) for slug, column in columns.items()}
    styler = (
        frame.style.hide(axis="index")
        .set_caption(str(escape(printable(table.title))))
        .set_td_classes(pd.DataFrame(classes, columns=frame.columns))
        .format_index(lambda slug: _name(table, columns[slug]), axis=1, level=1)
        .format_index(lambda group: groups[group], axis=1, level=0)
        .set_uuid(table.slug)
    )
    if set(groups) == {""}:
        styler = styler.hide(axis="columns", level=0)
    styler.cell_ids = False
    # Styler writes an element for styles of its own, and there are none.
    return Markup(styler.to_html().replace('<style type="text/css">\n</style>\n', ""))


def _classes(table: Table, column: Column) -> list[str]:
    texts = table.frame[column.slug] if column.is_text else [None] * len(table.frame)
    kind = "text" if column.is_text else "number"
    return [f"{kind} long" if one and len(one.text) > _LONG else kind for one in texts]


def _name(table: Table, column: Column) -> str:
    alike = [one for one in table.for_people if column.group and one.group == column.group]
    return str(
        Markup('<span class="{}">{}</span>').format(
            "text" if column.is_text else "number",
            printable(column.name).replace(" - ", " \u2212 "),
        )
        + _said(
            "" if len({_unit(table, one) for one in alike}) == 1 else _unit(table, column),
            "" if len({one.better for one in alike}) == 1 else column.better,
        )
    )


def _group(table: Table, group: str) -> str:
    """Return a group's name with what is the same for all of its columns."""
    if not group:
        return ""
    units, betters = zip(
        *((_unit(table, one), one.better) for one in table.for_people if one.group == group),
        strict=True,
    )
    said = _said(
        units[0] if len(set(units)) == 1 else "", betters[0] if len(set(betters)) == 1 else ""
    )
    return str(Markup('<span class="group">{}</span>').format(printable(group)) + said)


def _unit(table: Table, column: Column) -> str:
    return "" if column.is_text else table.style(column).unit


def _said(unit: str, better: str) -> Markup:
    found = Markup(' <span class="unit">{}</span>').format(unit) if unit else Markup()
    if better:
        found += Markup(' <span class="better">{}</span>').format(BETTER[better])
    return found
