"""A table as HTML: it scrolls in a box of its own where it is wider than the page."""

from __future__ import annotations

from split_unlearning.reporting.formats.markup import Markup, element, join
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import BETTER, Table, Value, seeds


def to_html(table: Table) -> Markup:
    """Return a table with its caption; the best number of a column is bold."""
    table = table.for_people()
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
        group, end = table.columns[place].group, table.group_end(place)
        if group:
            inside = range(place, end)
            # What is said of all columns of a group is said once.
            units = {_unit(table, inner) for inner in inside}
            betters = {table.columns[inner].better for inner in inside}
            said = _said(
                units.pop() if len(units) == 1 else "", betters.pop() if len(betters) == 1 else ""
            )
            above.append(
                element(
                    "th",
                    element("span", group),
                    *said,
                    colspan=end - place,
                    scope="colgroup",
                    class_="group",
                )
            )
            below += [
                _name(table, inner, inner == place, units=bool(units), betters=bool(betters))
                for inner in inside
            ]
        elif grouped:
            above.append(_name(table, place, False, rowspan=2))
        else:
            below.append(_name(table, place, False))
        place = end
    rows = [element("tr", *above)] if grouped else []
    return [*rows, element("tr", *below)]


def _unit(table: Table, place: int) -> str:
    return "" if table.columns[place].is_text else table.style(place).unit


def _said(unit: str, better: str) -> list[Markup]:
    """Return what a header says below a name."""
    parts = []
    if unit:
        parts.append(element("span", unit, class_="unit"))
    if better:
        parts.append(element("span", BETTER[better], class_="better"))
    return parts


def _name(
    table: Table,
    place: int,
    starts: bool,
    rowspan: int | None = None,
    units: bool = True,
    betters: bool = True,
) -> Markup:
    column = table.columns[place]
    said = _said(_unit(table, place) if units else "", column.better if betters else "")
    parts: list[object] = [element("span", column.name.replace(" - ", " \u2212 ")), *said]
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
    column = table.columns[place]
    spread = [
        one.deviation
        for row_of in table.rows
        if isinstance(one := row_of[place], Summary) and one.deviation is not None
    ]
    # That every seed counts as many need not be said.
    if any(spread) or (spread and column.unit != "count"):
        shown = ""
        if value.deviation is not None and not value.is_nothing:
            shown = f"± {style.deviation(value.deviation)}"
        # As wide in all rows, so that the means stand below each other.
        width = max(len(style.deviation(one)) for one in spread)
        parts.append(element("span", shown, class_="sd", style=f"min-width:{width + 2}ch"))
    if not column.fixed and value.count < seeds(row):
        few = f"measured in {value.count} of {seeds(row)} seeds"
        parts.append(element("sup", element("abbr", value.count, title=few)))
    return [join(*parts)]


def _classes(starts: bool, *others: str) -> str | None:
    return " ".join(name for name in ("starts" if starts else "", *others) if name) or None
