"""The report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.content import Content, Section
from split_unlearning.reporting.figures.chart import swatch
from split_unlearning.reporting.figures.figure import Figure, Panel
from split_unlearning.reporting.formats.html_table import to_html
from split_unlearning.reporting.formats.markup import Markup, element, join
from split_unlearning.reporting.groups import Group, constant, shown
from split_unlearning.reporting.table import Table

# So many rows of a figure's data stand in the page; the CSV has all.
_ROWS_IN_PAGE = 80
# What the browser is told: nothing is to be fetched, whatever stands in the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_page(content: Content) -> str:
    """Return the whole page."""
    benchmark = content.benchmark
    style = (files("split_unlearning.reporting") / "page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", benchmark.title),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element(
            "main",
            _header(content),
            _navigation(content.sections),
            *(_section(section) for section in content.sections),
            _environment(benchmark),
            _footer(),
        ),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _header(content: Content) -> Markup:
    benchmark = content.benchmark
    same = constant(benchmark.cells)
    return element(
        "header",
        element("p", "split-unlearning benchmark", class_="kicker"),
        element("h1", benchmark.title),
        element("ul", *(_fact(*fact) for fact in _facts(content)), class_="facts"),
        _alarm(benchmark),
        _reduced(benchmark),
        _left_out(benchmark),
        element("pre", element("code", benchmark.command), tabindex="0", aria_label="command")
        if benchmark.command
        else "",
        element(
            "p",
            element("b", "In all cells: "),
            join(
                *(
                    join(", " if number else "", key, " ", element("code", _shown(value)))
                    for number, (key, value) in enumerate(same.items())
                )
            ),
            ".",
            class_="same",
        )
        if same
        else "",
        _follows(content.groups),
        element(
            "p",
            "Rows are what cells with different seeds have in common: mean ± sample standard "
            "deviation over seeds. The best of a column is ",
            element("strong", "bold"),
            " where better is defined. What was not measured is “-”.",
            class_="note",
        ),
    )


def _facts(content: Content) -> list[tuple[str, str, str]]:
    """Return what is counted: a number, its name, and whether it is bad."""
    benchmark = content.benchmark
    failed = len(benchmark.failures)
    planned = len(benchmark.missing)
    facts = [
        (str(len(benchmark.cells)), _plural("cell", len(benchmark.cells)), ""),
        (str(len(content.groups)), _plural("row", len(content.groups)), ""),
        (str(content.seeds), _plural("seed", content.seeds), ""),
    ]
    if benchmark.shadows:
        facts.append((str(benchmark.shadows), _plural("shadow cell", benchmark.shadows), ""))
    facts.append((str(failed), "failed", "bad" if failed else ""))
    if planned:
        facts.append((str(planned), "missing", "bad"))
    if benchmark.seconds:
        facts.append((_duration(benchmark.seconds), "in all", ""))
    if any(section.slug == "paper" for section in content.sections):
        for verdict, name, tone in (
            ("holds", "claims hold", "good"),
            ("does not hold", "do not", "bad"),
            ("cannot be told", "open", "open"),
        ):
            count = sum(claim.verdict == verdict for claim in content.claims)
            if count and any(claim.verdict != "cannot be told" for claim in content.claims):
                facts.append((str(count), name, tone))
    return facts


def _fact(number: str, name: str, tone: str) -> Markup:
    return element("li", element("b", number), " ", name, class_=tone or None)


def _alarm(benchmark: Benchmark) -> Markup:
    if not benchmark.failures and not benchmark.missing:
        return Markup()
    said = []
    if benchmark.failures:
        failed = len(benchmark.failures)
        said.append(f"{failed} {_plural('cell', failed)} failed")
    if benchmark.missing:
        missing = len(benchmark.missing)
        said.append(f"{missing} {_plural('cell', missing)} did not end: this is not all of it")
    return element(
        "p",
        ", and ".join(said),
        ". ",
        element("a", "Which, and why", href="#failures"),
        class_="alarm",
    )


def _reduced(benchmark: Benchmark) -> Markup:
    if not benchmark.small and not benchmark.reduced:
        return Markup()
    lines = [element("li", line) for line in benchmark.reduced]
    return element(
        "div",
        element("p", element("b", "A small version." if benchmark.small else "Reduced.")),
        element("ul", *lines) if lines else element("p", "It does not say what is smaller."),
        class_="reduced",
    )


def _left_out(benchmark: Benchmark) -> Markup:
    if not benchmark.left_out:
        return Markup()
    lines = [element("li", line) for line in benchmark.left_out]
    summary = element("summary", f"Left out, because it cannot be: {len(lines)}")
    return element("details", summary, element("ul", *lines), class_="note")


def _follows(groups: Sequence[Group]) -> Markup:
    """Return the settings that differ and have no column: they follow from the rows."""
    parts: list[object] = []
    for axis in groups[0].others:
        rows: dict[str, list[str]] = {}
        for group in groups:
            value = "-" if group.value(axis) is None else _shown(group.value(axis))
            name = group.labels()[0]
            said = rows.setdefault(value, [])
            if name is not None and name.text not in said:
                said.append(name.text)
        names = [name for said in rows.values() for name in said]
        if len(set(names)) < len(names):
            parts.append(join(" ", axis, ": see the CSV files."))
            continue
        told = [
            join("; " if number else "", element("code", value), f" ({', '.join(said)})")
            for number, (value, said) in enumerate(rows.items())
        ]
        parts.append(join(" ", axis, ": ", *told, "."))
    if not parts:
        return Markup()
    return element("p", element("b", "By row:"), *parts, class_="same")


def _navigation(sections: Sequence[Section]) -> Markup:
    links = [
        element("li", element("a", section.title, href=f"#{section.slug}")) for section in sections
    ]
    links.append(element("li", element("a", "Environment", href="#environment")))
    return element("nav", element("ul", *links), aria_label="Sections")


def _section(section: Section) -> Markup:
    return element(
        "section",
        element("h2", section.title),
        *(
            # What is the same as above is not said again.
            _table(table, not number or table.notes != section.tables[number - 1].notes)
            for number, table in enumerate(section.tables)
        ),
        *(_figure(figure) for figure in section.figures),
        id=section.slug,
    )


def _table(table: Table, noted: bool) -> Markup:
    return element(
        "div",
        to_html(table),
        element(
            "div",
            *(element("p", note) for note in table.notes if noted),
            element("p", "As ", _files(table.slug, ("csv", "md", "tex")), class_="files"),
            class_="note",
        ),
        class_="tabled",
    )


def _figure(figure: Figure) -> Markup:
    keys = [
        element(
            "li",
            swatch(key.style, key.dashed, key.line, key.marker),
            element("abbr", key.name.text, title=key.name.full)
            if key.name.full and key.name.full != key.name.text
            else element("span", key.name.text),
        )
        for key in figure.legend
    ]
    data = figure.data.shown()
    short = len(data.rows) <= _ROWS_IN_PAGE
    return element(
        "figure",
        element(
            "figcaption", element("h3", figure.title), element("p", figure.caption, class_="note")
        ),
        element("ul", *keys, class_="legend") if keys else "",
        _panels(figure.panels),
        *(
            element("details", element("summary", heading), _panels(panels))
            for heading, panels in figure.folded
        ),
        element(
            "details",
            element("summary", "Data"),
            to_html(data) if short else element("p", f"{len(data.rows):,} rows.", class_="note"),
            element("p", "As ", _files(figure.data.slug, ("csv",)), class_="files note"),
        ),
        id=f"figure-{figure.slug}",
    )


def _panels(panels: Iterable[Panel]) -> Markup:
    drawn = list(panels)
    return element(
        "div",
        *(
            element(
                "div",
                element("h4", panel.heading),
                panel.chart,
                class_="panel wide" if panel.wide else "panel",
            )
            for panel in drawn
        ),
        class_={1: "panels one", 2: "panels two", 4: "panels two"}.get(len(drawn), "panels"),
    )


def _files(slug: str, kinds: Sequence[str]) -> Markup:
    words = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
    return join(
        *(
            join(", " if number else "", element("a", words[kind], href=f"tables/{slug}.{kind}"))
            for number, kind in enumerate(kinds)
        )
    )


def _environment(benchmark: Benchmark) -> Markup:
    found: dict[str, list[str]] = {}
    for key, value in benchmark.environment.items():
        found[str(key)] = [_shown(value)]
    for cell in benchmark.cells:
        for key, value in cell.environment.items():
            values = found.setdefault(str(key), [])
            if _shown(value) not in values:
                values.append(_shown(value))
    pairs = [
        element("div", element("dt", key.replace("_", " ")), element("dd", " / ".join(values)))
        for key, values in found.items()
    ]
    return element(
        "section",
        element("h2", "Environment"),
        element("dl", *pairs, class_="environment"),
        id="environment",
    )


def _footer() -> Markup:
    return element(
        "footer",
        element(
            "p",
            "Every figure comes from the cells' result.json and metrics.json beside this page; it "
            "was made by ",
            element("code", "split-unlearning report"),
            ".",
        ),
    )


def _shown(value: Any) -> str:
    return shown(value).text


def _plural(name: str, count: int) -> str:
    return name if count == 1 else f"{name}s"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
