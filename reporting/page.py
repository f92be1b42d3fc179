"""The report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.content import Content
from split_unlearning.reporting.figures.drawing import file_stem, inline, swatch
from split_unlearning.reporting.formats.html import to_html
from split_unlearning.reporting.groups import Group, constant, shown
from split_unlearning.reporting.values import plural, printable

# So many rows of a figure's data stand in the page; the CSV has all.
_ROWS_IN_PAGE = 80
_KINDS = {kind: kind.upper() for kind in ("csv", "pdf", "svg", "png")}


def render_page(content: Content) -> str:
    """Return the whole page."""
    room = files("split_unlearning.reporting")
    style = (room / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["html"] = to_html
    template = environment.from_string((room / "page.html.j2").read_text(encoding="utf-8"))
    benchmark = content.benchmark
    return template.render(
        policy=_policy(style),
        style=Markup(style),
        benchmark=benchmark,
        sections=content.sections,
        facts=_facts(content),
        alarm=_alarm(benchmark),
        same={key: _shown(value) for key, value in constant(benchmark.cells).items()},
        follows=_follows(content.results.groups),
        environment=_environment(benchmark),
        rows_in_page=_ROWS_IN_PAGE,
        kind_names={**_KINDS, "md": "Markdown", "tex": "LaTeX"},
        file_stem=file_stem,
        inline=inline,
        swatch=swatch,
    )


def _policy(style: str) -> str:
    """Return what the browser is told: nothing is fetched, and no style is applied but ours."""
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _finalize(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(value)


def _facts(content: Content) -> list[tuple[str, str, str]]:
    """Return what is counted: a number, its name, and whether it is bad."""
    benchmark = content.benchmark
    failed, missing = len(benchmark.failures), len(benchmark.missing)
    counted = [
        (len(benchmark.cells), "cell"),
        (len(content.results.groups), "row"),
        (len({cell.seed for cell in benchmark.cells}), "seed"),
        *([(benchmark.shadows, "shadow cell")] if benchmark.shadows else []),
    ]
    facts = [(str(count), plural(count, name).partition(" ")[2], "") for count, name in counted]
    facts.append((str(failed), "failed", "bad" if failed else ""))
    if missing:
        facts.append((str(missing), "missing", "bad"))
    if benchmark.seconds:
        facts.append((_duration(benchmark.seconds), "in all", ""))
    verdicts = [claim.verdict for claim in content.claims]
    if {"holds", "does not hold"} & set(verdicts):
        facts += [
            (str(verdicts.count(verdict)), name, tone)
            for verdict, name, tone in (
                ("holds", "claims hold", "good"),
                ("does not hold", "do not", "bad"),
                ("cannot be told", "open", "open"),
                ("no verdict", "without a verdict", "open"),
            )
            if verdict in verdicts
        ]
    return facts


def _alarm(benchmark: Benchmark) -> str:
    said = []
    if benchmark.failures:
        said.append(f"{plural(len(benchmark.failures), 'cell')} failed")
    if benchmark.missing:
        missing = plural(len(benchmark.missing), "cell")
        said.append(f"{missing} did not end: this is not all of it")
    return ", and ".join(said)


def _follows(groups: Sequence[Group]) -> dict[str, dict[str, list[str]]]:
    """Return the settings that differ and have no column, with the rows of each value.

    A setting has no values where a row's name stands for several.
    """
    found = {}
    for axis in groups[0].others:
        rows: dict[str, list[str]] = {}
        for group in groups:
            value = "-" if group.value(axis) is None else _shown(group.value(axis))
            name = group.labels()[0]
            said = rows.setdefault(value, [])
            if name is not None and name.text not in said:
                said.append(name.text)
        names = [name for said in rows.values() for name in said]
        found[axis] = rows if len(set(names)) == len(names) else {}
    return found


def _environment(benchmark: Benchmark) -> dict[str, list[str]]:
    """Return all values of the benchmark's environment and its cells'."""
    found: dict[str, dict[str, None]] = {}
    for environment in (benchmark.environment, *(cell.environment for cell in benchmark.cells)):
        for key, value in environment.items():
            found.setdefault(str(key), {})[_shown(value)] = None
    return {key: list(values) for key, values in found.items()}


def _shown(value: Any) -> str:
    return shown(value).text


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
