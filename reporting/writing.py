"""Writes a report: ``report.html``, each table in ``tables/``, and each figure in ``figures/``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from split_unlearning.foundations.files import write_whole
from split_unlearning.reporting.benchmark import read_benchmark
from split_unlearning.reporting.content import Content, make_content
from split_unlearning.reporting.figures.drawing import save
from split_unlearning.reporting.formats.csv import to_csv
from split_unlearning.reporting.formats.latex import to_latex
from split_unlearning.reporting.formats.markdown import to_markdown
from split_unlearning.reporting.page import render_page

# A file of an earlier report is removed where this one writes it no more; no other file is.
_LISTED = ".written"
_ENDINGS = (".csv", ".md", ".tex", ".pdf", ".svg", ".png")


def write_report(folder: Path) -> Content:
    """Read a benchmark's folder, write its report into it, and return what the report says.

    Raises
    ------
    UserError
        If the folder is none of a benchmark, or no cell of it is done.
    OSError
        If it cannot be written to.
    """
    content = make_content(read_benchmark(folder))
    tables, figures = folder / "tables", folder / "figures"
    texts = render_tables(content)
    drawn = [figure for section in content.sections for figure in section.figures]
    for room in (tables, figures):
        room.mkdir(exist_ok=True)
    for name, text in texts.items():
        _write(tables / name, text)
    names = [name for figure in drawn for name in save(figure, figures)]
    _remove_former(tables, texts)
    _remove_former(figures, names)
    _write(folder / "report.html", render_page(content))
    return content


def render_tables(content: Content) -> dict[str, str]:
    """Return the texts of all tables' files, and of the figures' data, by name."""
    texts = {}
    for section in content.sections:
        for table in section.tables:
            texts[f"{table.slug}.csv"] = to_csv(table)
            texts[f"{table.slug}.md"] = to_markdown(table)
            texts[f"{table.slug}.tex"] = to_latex(table)
        for figure in section.figures:
            texts[f"{figure.data.slug}.csv"] = to_csv(figure.data)
    return texts


def _remove_former(folder: Path, written: Iterable[str]) -> None:
    """Remove what an earlier report wrote and this one did not, and list what this one wrote."""
    kept, listed = set(written), folder / _LISTED
    former = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    for name in former:
        if name not in kept and Path(name).name == name and Path(name).suffix in _ENDINGS:
            (folder / name).unlink(missing_ok=True)
    _write(listed, "".join(f"{name}\n" for name in sorted(kept)))


def _write(path: Path, text: str) -> None:
    # A surrogate that stands alone in a file of the benchmark cannot be written.
    write_whole(path, text.encode("utf-8", errors="replace"))
