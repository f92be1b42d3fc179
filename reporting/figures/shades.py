"""A table drawn as SVG, whose cells are the darker the more they hold."""

from __future__ import annotations

from collections.abc import Sequence

from split_unlearning.reporting.figures.chart import LETTER, text_at
from split_unlearning.reporting.formats.markup import Markup, element


def shades(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[int | None]],
    alternative: str,
    most: int | None = None,
) -> Markup:
    """Return a table of whole numbers: the darker, the more.

    Parameters
    ----------
    rows, columns : sequence of str
        Names.
    values : sequence of sequences of int or None
        A row each; nothing is drawn where there is none.
    alternative : str
        The same in words.
    most : int, optional
        What the darkest stands for; by default the largest value.
    """
    size, high = (36, 26) if len(columns) <= 20 else (max(4, 720 // len(columns)), 14)
    left = 14 + LETTER * max(map(len, rows))
    tilted = max((len(name) for name in columns), default=0) * LETTER > size
    top = 12 + (4.6 * max(map(len, columns)) if tilted else 10)
    named = len(columns) <= 20
    most = most or max((value or 0 for row in values for value in row), default=0) or 1
    parts: list[Markup] = []
    for place, name in enumerate(columns):
        across = left + (place + 0.5) * size
        if not named:
            continue
        turn = f"rotate(-45 {across:g} {top - 6:g})" if tilted else None
        anchor = "start" if tilted else "middle"
        parts.append(text_at(name, across, top - 6, anchor, transform=turn))
    for number, (name, row) in enumerate(zip(rows, values, strict=True)):
        parts.append(text_at(name, left - 8, top + (number + 0.5) * high + 4, "end"))
        for place, value in enumerate(row):
            if value is None:
                continue
            share = value / most
            box = element(
                "rect",
                element("title", f"{name}, {columns[place]}: {value}"),
                x=f"{left + place * size + 0.5:g}",
                y=f"{top + number * high + 0.5:g}",
                width=size - 1,
                height=high - 1,
                class_="count" if value else "count empty",
                fill_opacity=f"{0.12 + 0.88 * share:.2f}" if value else None,
            )
            parts.append(box)
            if value and named:
                parts.append(
                    text_at(
                        str(value),
                        left + (place + 0.5) * size,
                        top + (number + 0.5) * high + 4,
                        "middle",
                        class_="on" if share > 0.5 else "value",
                    )
                )
    # A tilted name reaches beyond its column; the last ones perhaps beyond all of them.
    reach = [(place + 0.5) * size + 0.71 * LETTER * len(name) for place, name in enumerate(columns)]
    right = max([len(columns) * size, *(reach if tilted and named else [])])
    width = left + right + 6
    return element(
        "svg",
        element("title", alternative),
        *parts,
        viewBox=f"0 0 {width:g} {top + len(rows) * high + 6:g}",
        style=f"max-width:{width:.0f}px",
        role="img",
        aria_label=alternative,
    )
