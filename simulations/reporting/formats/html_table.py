"""A table as HTML: it scrolls in a box of its own where it is wider than the page."""

from __future__ import annotations

from simulations.reporting.formats.markup import Markup, element, join
from simulations.reporting.statistic import Summary
from simulations.reporting.table import BETTER, Table, Value, seeds

_NO_UNIT = ("", "count", "value")


def to_html(table: Table) -> Markup:
    """Return a table with its caption; the best number of a column is bold."""
    head = element("thead", *_head(table))
    best = [table.best(place) for place in range(len(table.columns))]
    body = element(
        "tbody",
        *(
            element(
                "tr",
                *(
                    _cell(table, row, place, number in best[place])
                    for place in range(len(table.columns))
                ),
            )
            for number, row in enumerate(table.rows)
        ),
    )
    shown = element("table", element("caption", table.title), head, body, id=f"table-{table.slug}")
    return element(
        "div", shown, class_="scroll", role="region", tabindex="0", aria_label=table.title
    )


def _head(table: Table) -> list[Markup]:
    grouped = any(column.group for column in table.columns)
    above, below, place = [], [], 0
    while place < len(table.columns):
        group, end = table.columns[place].group, place + 1
        while group and end < len(table.columns) and table.columns[end].group == group:
            end += 1
        if group:
            above.append(
                element("th", group, colspan=end - place, scope="colgroup", class_="group")
            )
            below += [_name(table, inner, inner == place) for inner in range(place, end)]
        elif grouped:
            above.append(_name(table, place, False, rowspan=2))
        else:
            below.append(_name(table, place, False))
        place = end
    rows = [element("tr", *above)] if grouped else []
    return [*rows, element("tr", *below)]


def _name(table: Table, place: int, starts: bool, rowspan: int | None = None) -> Markup:
    column = table.columns[place]
    unit = "" if column.is_text else table.style(place).unit
    parts: list[object] = [element("span", column.name.replace(" - ", " \u2212 "))]
    if unit:
        parts.append(element("span", unit, class_="unit"))
    if column.better:
        parts.append(element("span", BETTER[column.better], class_="better"))
    classes = " ".join(
        name for name, holds in (("text", column.is_text), ("starts", starts)) if holds
    )
    return element("th", *parts, scope="col", class_=classes or None, rowspan=rowspan)


def _cell(table: Table, row: tuple[Value, ...], place: int, best: bool) -> Markup:
    value, column = row[place], table.columns[place]
    starts = bool(column.group) and (place == 0 or table.columns[place - 1].group != column.group)
    if isinstance(value, Summary):
        return element("td", *_number(table, row, place, value, best), class_=_classes(starts))
    tag, scope = ("th", "row") if place == 0 and column.is_text else ("td", None)
    if value is None:
        classes = _classes(starts, "none", "text" if column.is_text else "")
        return element(tag, "-", class_=classes, scope=scope)
    content: object = value.text
    if value.full and value.full != value.text:
        content = element("abbr", value.text, title=value.full)
    if value.tone:
        content = element("span", content, class_=f"verdict {value.tone}")
    long = "long" if len(value.text) > 40 else ""
    return element(tag, content, class_=_classes(starts, "text", long), scope=scope)


def _number(
    table: Table, row: tuple[Value, ...], place: int, value: Summary, best: bool
) -> list[object]:
    style = table.style(place)
    mean = style.mean(value.mean).replace("-", "\u2212")
    parts: list[object] = [element("strong", mean) if best else mean]
    if any(isinstance(one[place], Summary) and _has_spread(one[place]) for one in table.rows):
        shown = "" if value.deviation is None else f"± {style.deviation(value.deviation)}"
        # As wide in all rows, so that the means stand below each other.
        width = max(
            len(style.deviation(one[place].deviation))  # type: ignore[union-attr,arg-type]
            for one in table.rows
            if _has_spread(one[place])
        )
        parts.append(element("span", shown, class_="sd", style=f"min-width:{width + 2}ch"))
    column = table.columns[place]
    if column.unit not in _NO_UNIT and value.count < seeds(row):
        few = f"measured in {value.count} of {seeds(row)} seeds"
        parts.append(element("sup", element("abbr", value.count, title=few)))
    return [join(*parts)]


def _has_spread(value: Value) -> bool:
    return isinstance(value, Summary) and value.deviation is not None


def _classes(starts: bool, *others: str) -> str | None:
    return " ".join(name for name in ("starts" if starts else "", *others) if name) or None
