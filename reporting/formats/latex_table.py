"""A table as LaTeX (booktabs), to be put into a paper."""

from __future__ import annotations

import re

from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Better, Label, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "`": r"\textasciigrave{}",
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
    "[": r"{[}",
    "]": r"{]}",
}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BETTER: dict[Better, str] = {
    "higher": r"$\uparrow$",
    "lower": r"$\downarrow$",
    "zero": r"$\to 0$",
    "": "",
}


def to_latex(table: Table) -> str:
    r"""Return a ``table`` environment; it needs ``\usepackage{booktabs,textcomp}``.

    The best number of a column is bold; an arrow in its header says whether more or less is better.
    """
    table = table.for_people()
    places = range(len(table.columns))
    best = [table.best(place) for place in places]
    sides = "".join("l" if column.is_text else "r" for column in table.columns)
    groups, rules = _groups(table)
    lines = [
        r"% \usepackage{booktabs,textcomp}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{escaped(table.title)}.}}",
        f"  \\label{{tab:{table.slug}}}",
        f"  \\begin{{tabular}}{{{sides}}}",
        r"    \toprule",
    ]
    if rules:
        lines += [f"    {groups} \\\\", f"    {rules}"]
    lines += [f"    {' & '.join(_header(table, place) for place in places)} \\\\", r"    \midrule"]
    for number, row in enumerate(table.rows):
        cells = []
        for place, value in enumerate(row):
            if isinstance(value, Summary):
                style = table.style(place)
                shown = style.mean(value.mean).replace("-", "$-$")
                if value.deviation is not None and not value.is_nothing:
                    shown += f" $\\pm$ {style.deviation(value.deviation)}"
                cells.append(f"\\textbf{{{shown}}}" if number in best[place] else shown)
            else:
                cells.append(escaped(value.text) if isinstance(value, Label) else "--")
        lines.append(f"    {' & '.join(cells)} \\\\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if table.notes:
        notes = " ".join(escaped(note) for note in table.notes)
        lines.append(f"  \\par\\smallskip\\footnotesize {notes}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escaped(text: str) -> str:
    """Return a text that LaTeX sets as it is, in one line."""
    return "".join(_SPECIAL.get(letter, letter) for letter in _CONTROL.sub(" ", text))


def _header(table: Table, place: int) -> str:
    column = table.columns[place]
    unit = "" if column.is_text else table.style(place).unit
    name = f"{column.name}, {unit}" if unit else column.name
    arrow = _BETTER[column.better]
    return f"{escaped(name)} {arrow}".rstrip()


def _groups(table: Table) -> tuple[str, str]:
    """Return the upper row of the header, and the rules below it; empty if there are no groups."""
    cells, rules, place = [], [], 0
    while place < len(table.columns):
        group, end = table.columns[place].group, table.group_end(place)
        if group:
            cells.append(f"\\multicolumn{{{end - place}}}{{c}}{{{escaped(group)}}}")
            rules.append(f"\\cmidrule(lr){{{place + 1}-{end}}}")
        else:
            cells.append("")
        place = end
    return " & ".join(cells), " ".join(rules)
