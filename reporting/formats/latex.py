"""A table as LaTeX (booktabs), to be put into a paper, by pandas' Styler."""

from __future__ import annotations

import re

from split_unlearning.reporting.formats.shown import Marks, shown
from split_unlearning.reporting.table import Better, Column, Table

# Styler's own escaping leaves out what the default encoding of fonts sets as other letters.
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "{}$&#%_"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "`": r"\textasciigrave{}",
    "[": r"{[}",
    "]": r"{]}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "\u2212": r"$-$",
}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BETTER: dict[Better, str] = {
    "higher": r" $\uparrow$",
    "lower": r" $\downarrow$",
    "zero": r" $\to 0$",
    "": "",
}
_MARKS = Marks(
    text=lambda label: escaped(label.text),
    best=r"\textbf{{{}}}",
    minus="$-$",
    spread=lambda deviation, _: f" $\\pm$ {deviation}" if deviation else "",
    missing="--",
)


def to_latex(table: Table) -> str:
    r"""Return a ``table`` environment; it needs ``\usepackage{booktabs,textcomp}``.

    The best number of a column is bold; an arrow in its header says whether more or less is better.
    """
    frame = shown(table, _MARKS)
    columns = {column.slug: column for column in table.for_people}
    grouped = any(column.group for column in columns.values())
    styler = (
        frame.style.hide(axis="index")
        .format_index(lambda slug: _header(table, columns[slug]), axis=1, level=1)
        .format_index(escaped, axis=1, level=0)
    )
    if not grouped:
        styler = styler.hide(axis="columns", level=0)
    text: str = styler.to_latex(
        hrules=True,
        position_float="centering",
        caption=f"{escaped(table.title)}.",
        label=f"tab:{table.slug}",
        column_format="".join("l" if column.is_text else "r" for column in columns.values()),
        multicol_align="c",
    )
    if grouped:
        # Styler draws no rules below the names of groups.
        head, _, rest = text.partition("\\toprule\n")
        names, _, rest = rest.partition("\n")
        text = f"{head}\\toprule\n{names}\n{_rules(list(columns.values()))}\n{rest}"
    notes = " ".join(map(escaped, table.notes))
    below = f"\\par\\smallskip\\footnotesize {notes}\n" if notes else ""
    return "% \\usepackage{booktabs,textcomp}\n" + text.replace(
        "\\end{table}\n", f"{below}\\end{{table}}\n"
    )


def escaped(text: str) -> str:
    """Return a text that LaTeX sets as it is, in one line."""
    return "".join(_SPECIAL.get(letter, letter) for letter in _CONTROL.sub(" ", text))


def _header(table: Table, column: Column) -> str:
    unit = "" if column.is_text else table.style(column).unit
    name = f"{column.name}, {unit}" if unit else column.name
    return escaped(name) + _BETTER[column.better]


def _rules(columns: list[Column]) -> str:
    places: dict[str, list[int]] = {}
    for place, column in enumerate(columns, start=1):
        places.setdefault(column.group, []).append(place)
    return " ".join(
        f"\\cmidrule(lr){{{found[0]}-{found[-1]}}}" for group, found in places.items() if group
    )
