"""Writes a report: ``report.html``, and each table as CSV, Markdown and LaTeX in ``tables/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from split_unlearning.foundations.files import write_whole
from split_unlearning.reporting.benchmark import read_benchmark
from split_unlearning.reporting.content import Content, make_content
from split_unlearning.reporting.formats.csv_table import to_csv
from split_unlearning.reporting.formats.latex_table import to_latex
from split_unlearning.reporting.formats.markdown_table import to_markdown
from split_unlearning.reporting.page import render_page

# What an earlier report wrote is removed where this one writes it no more; nothing else is.
_LISTED = ".written"
_ENDINGS = (".csv", ".md", ".tex")


def write_report(folder: Path) -> Content:
    """Read a benchmark's folder and write its report into it.

    Parameters
    ----------
    folder : Path
        As ``split-unlearning benchmark`` leaves it.

    Returns
    -------
    Content
        What the report says.

    Raises
    ------
    UserError
        If the folder is none of a benchmark, or no cell of it is done.
    OSError
        If it cannot be written to.
    """
    content = make_content(read_benchmark(folder))
    files = render_files(content)
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    _remove_former(tables, files)
    for name, text in files.items():
        _write(tables / name, text)
    _write(tables / _LISTED, "".join(f"{name}\n" for name in sorted(files)))
    _write(folder / "report.html", render_page(content))
    return content


def render_files(content: Content) -> dict[str, str]:
    """Return the texts of all tables' files, and of the figures' data, by name."""
    files = {}
    for section in content.sections:
        for table in section.tables:
            files[f"{table.slug}.csv"] = to_csv(table)
            files[f"{table.slug}.md"] = to_markdown(table)
            files[f"{table.slug}.tex"] = to_latex(table)
        for figure in section.figures:
            files[f"{figure.data.slug}.csv"] = to_csv(figure.data.shown())
    return files


def _remove_former(tables: Path, kept: Mapping[str, str]) -> None:
    try:
        former = (tables / _LISTED).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for name in former:
        if name not in kept and Path(name).name == name and Path(name).suffix in _ENDINGS:
            (tables / name).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    # A report may quote bytes that are no text.
    write_whole(path, text.encode("utf-8", errors="replace"))
