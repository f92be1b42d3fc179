"""Pictures as vectors in the page, and as PDF, SVG and PNG files that fit a paper's column."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from textwrap import fill
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure as Drawn

from split_unlearning.reporting.figures.chart import legend_line
from split_unlearning.reporting.figures.figure import Figure, Key, Panel
from split_unlearning.reporting.values import shortened

KINDS = ("pdf", "svg", "png")
_PIXELS = 380 / 241.2  # of the page, a point of the picture
_LINE, _LETTERS = 0.15, 54  # of a legend: inches a line, and letters that fit into it
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
# The page says in which letters its text is set, and how long a line is clipped is not needed.
_DROPPED = ("font-family", "font-variant", "font-stretch")


def inline(panel: Panel, name: str) -> Markup:
    """Return a panel as an element of the page, in the page's colours; `name` is its own."""
    with _style():
        picture = panel.picture.draw()
        root = _svg(picture, name, panel.picture.tooltips())
    root.set("role", "img")
    root.set("aria-label", panel.picture.words)
    title = ElementTree.Element("title")
    title.text = panel.picture.words
    root.insert(0, title)
    return _markup(root)


def swatch(key: Key, name: str) -> Markup:
    """Return a small picture of a curve, for the legend of the page; `name` is its own."""
    return Markup(_swatch(key.style, key.dashed, key.line, key.marker).replace("key-", f"{name}-"))


@cache
def _swatch(style: int, dashed: bool, line: bool, marker: bool) -> str:
    with _style():
        drawn = Drawn(figsize=(0.27, 0.14))
        look = legend_line(style, dashed, line, marker)
        look.set_data([0, 0.5, 1], [0.5, 0.5, 0.5])
        look.set_markevery([1])
        look.set_transform(drawn.transFigure)
        drawn.add_artist(look)
        root = _svg(drawn, "key", {})
    root.set("aria-hidden", "true")
    root.set("class", "swatch")
    return _markup(root)


def save(figure: Figure, folder: Path) -> list[str]:
    """Write the panels of a figure, each with the legend, and return the names of the files."""
    names = []
    for number, panel in enumerate(figure.panels, start=1):
        stem = file_stem(figure, number)
        with _style():
            drawn = panel.picture.draw()
            _add_legend(drawn, figure.legend)
            # Three files of one layout.
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")
            for kind in KINDS:
                names.append(f"{stem}.{kind}")
                metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
                drawn.savefig(folder / names[-1], metadata=metadata)
    return names


def file_stem(figure: Figure, number: int) -> str:
    """Return the stem of the files' names of a figure's panel, counted from 1."""
    return f"{figure.slug}-{number}" if len(figure.panels) > 1 else figure.slug


def _add_legend(drawn: Drawn, keys: Sequence[Key]) -> None:
    if not keys:
        return
    names = [fill(shortened(key.name.text, 200), _LETTERS) for key in keys]
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(1, min(len(names), _LETTERS // (longest + 6)))
    lines = sum(name.count("\n") + 1 for name in names)
    wide, high = drawn.get_size_inches()
    drawn.set_size_inches(wide, high + _LINE * -(-lines // columns))
    drawn.legend(
        [legend_line(key.style, key.dashed, key.line, key.marker) for key in keys],
        names,
        loc="outside lower center",
        ncols=columns,
    )


@contextmanager
def _style() -> Iterator[None]:
    style = files("split_unlearning.reporting.figures") / "report.mplstyle"
    with mpl.rc_context(fname=str(style)), warnings.catch_warnings():
        # A letter that the files' font does not have is a box there, and itself in the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@cache
def _colours() -> dict[str, str]:
    """Return the page's name of each colour of its light form."""
    css = (files("split_unlearning.reporting") / "page.css").read_text(encoding="utf-8")
    light = css.partition("}")[0]
    return {colour: f"var(--{name})" for name, colour in re.findall(r"--(\w+): (#\w{6});", light)}


def _svg(drawn: Drawn, name: str, tooltips: Mapping[str, Sequence[str]]) -> ElementTree.Element:
    """Return what matplotlib draws without what a page does not need, or a policy forbids."""
    sink = BytesIO()
    drawn.savefig(sink, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(sink.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
        said = tooltips.get(parent.get("id", ""), ())
        marks = [one for one in parent.iter() if one.tag == f"{_SVG}use"] or list(parent)
        for mark, text in zip(marks, said, strict=False):
            ElementTree.SubElement(mark, "title").text = text
    used = {link.removeprefix("#") for one in root.iter() if (link := one.get(_LINK))}
    for one in root.iter():
        one.tag = one.tag.removeprefix(_SVG)
        _attributes(one, name, used)
    _, _, wide, high = map(float, root.attrib.pop("viewBox").split())
    root.attrib = {
        "viewBox": f"0 0 {wide:g} {high:g}",
        "width": f"{wide * _PIXELS:.0f}",
        "height": f"{high * _PIXELS:.0f}",
    }
    return root


def _attributes(one: ElementTree.Element, name: str, used: set[str]) -> None:
    """Write styles as attributes, which no policy forbids, and keep an id where it is used."""
    if (link := one.attrib.pop(_LINK, None)) is not None:
        one.set("href", f"#{name}-{link.removeprefix('#')}")
    known = one.attrib.pop("id", "")
    if known in used:
        one.set("id", f"{name}-{known}")
    one.attrib.pop("clip-path", None)
    for line in one.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in line.partition(":"))
        if key and key not in _DROPPED:
            one.set(key, _colours().get(value, value))
    if "d" in one.attrib:
        one.set("d", re.sub(r"(\.\d\d)\d+", r"\1", " ".join(one.attrib["d"].split())))


def _markup(root: ElementTree.Element) -> Markup:
    ElementTree.indent(root, "")
    return Markup(ElementTree.tostring(root, encoding="unicode", method="html"))
