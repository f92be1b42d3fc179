"""A table in four formats: nothing that stands in it breaks one."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.reporting.formats import latex, markdown
from split_unlearning.reporting.formats.csv import to_csv
from split_unlearning.reporting.formats.html import to_html
from split_unlearning.reporting.formats.latex import to_latex
from split_unlearning.reporting.formats.markdown import to_markdown
from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, Summary

NASTY = "<script>alert('1')</script> a|b & c_d 100% {x} $y$ #1 ~ ^ \\ \"q\" `z` *w* [l](u)\nnew"
texts = st.one_of(st.just(NASTY), st.text(max_size=30))


def table(text="x", *rows, **more):
    columns = (
        Column("name", text or "name"),
        Column("value", "value", group="both", unit="share", better="higher"),
        Column("cost", "cost", group="both", unit="seconds", better="lower"),
    )
    rows = rows or ((Label(text), Summary(0.5, 0.1, 3), Summary(1.0)),)
    return make_table("t", text, columns, rows, **more)


class Reader(HTMLParser):
    """Takes down which elements there are, and the text of all cells."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.cells, self._inside = [], [], False
        self.attributes = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("td", "th"):
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.cells[-1] += data


@settings(deadline=None)
@given(texts)
def test_html_shows_any_text_as_it_is(text):
    read = Reader(to_html(table(text)))
    known = {"table", "caption", "thead", "tbody", "tr", "th", "td", "span", "strong"}
    assert set(read.tags) <= known | {"abbr", "sup"}
    assert "style" not in dict(read.attributes)
    # What HTML cannot hold is replaced, and nothing else is changed.
    printable = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", text)
    shown = [cell.replace("\r\n", "\n").replace("\r", "\n") for cell in read.cells]
    assert printable.replace("\r\n", "\n").replace("\r", "\n") in shown


@settings(deadline=None)
@given(texts)
def test_markdown_keeps_any_text_in_its_cell(text):
    lines = to_markdown(table(text)).split("\n")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 3
    for line in rows:
        assert len(re.split(r"(?<!\\)\|", line.replace("\\\\", ""))) == 5
    assert not re.search(
        r"(?<!\\)[<&`$*_]", lines[0].removeprefix("**").removesuffix("**").replace("\\\\", "")
    )
    unescaped = re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", markdown.escaped(text))
    assert unescaped == re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)


@settings(deadline=None)
@given(texts)
def test_latex_has_no_special_letter_that_is_not_escaped(text):
    escaped = latex.escaped(text)
    # What a command or a symbol is written as is taken out first.
    plain = re.sub(
        r"\\text[a-z]+\{\}|\$\\[a-z]+\$|\$-\$|\{[\[\]]\}|\{''\}|\\[{}$&#%_]", "", escaped
    )
    assert not set(plain) & set('\\{}$&#%_^~<>|"`[]\n')
    lines = to_latex(table(text)).splitlines()
    row = lines[lines.index(r"\midrule") + 1]
    assert row.endswith(r" \\")
    assert len(re.split(r"(?<!\\)&", row)) == 3


@settings(deadline=None)
@given(texts)
def test_csv_gives_back_any_text(text):
    text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    written = to_csv(table("t", (Label("short", text or "full"), Summary(0.5, 0.1, 3), None)))
    read = list(csv.reader(io.StringIO(written, newline="")))
    assert read[1][0] == (text or "full")


def test_csv_has_numbers_as_they_were_measured():
    rows = (
        (Label("a"), Summary(1 / 3, 0.1, 3), Summary(2.0)),
        (Label("b"), None, Summary(0.25)),
    )
    read = list(csv.reader(io.StringIO(to_csv(table("t", *rows)))))
    assert read == [
        ["name", "value_share", "value_share_sd", "value_share_n", "cost_seconds"],
        ["a", str(1 / 3), "0.1", "3", "2"],
        ["b", "", "", "", "0.25"],
    ]


def test_the_best_is_bold_in_every_format_and_headers_say_what_is_better():
    rows = ((Label("a"), Summary(0.9), Summary(2.0)), (Label("b"), Summary(0.8), Summary(1.0)))
    shown = table("t", *rows)
    assert "| a | **90.0** | 2.00 |" in to_markdown(shown)
    assert "(higher is better)" in to_markdown(shown)
    assert r"b & 80.0 & \textbf{1.00}" in to_latex(shown)
    assert r"value, \% $\uparrow$" in to_latex(shown)
    page = to_html(shown)
    assert "<strong>90.0</strong>" in page
    assert "<strong>80.0</strong>" not in page
    assert "higher is better" in page
    assert "lower is better" in page


def test_what_was_not_measured_is_a_dash():
    shown = table("t", (None, None, Summary(1.0)), (Label("b"), Summary(0.5), None))
    assert "| - | - | 1.00 |" in to_markdown(shown)
    assert "-- & -- & 1.00" in to_latex(shown)
    assert Reader(to_html(shown)).cells.count("-") == 3


def test_a_shortened_text_has_all_of_it_as_a_tooltip():
    page = to_html(table("t", (Label("Mine", "my_package.protocol:Mine"), Summary(1.0), None)))
    assert '<abbr title="my_package.protocol:Mine">Mine</abbr>' in page


def test_a_number_that_fewer_seeds_measured_says_so():
    row = (Label("a"), Summary(0.5, 0.1, 2), Summary(1.0, 0.1, 3))
    assert "measured in 2 of 3 seeds" in to_html(table("t", row))
    assert "measured in" not in to_html(table("t", (Label("a"), Summary(0.5, 0.1, 3), row[2])))


@pytest.mark.parametrize("write", [to_markdown, to_latex, to_html])
def test_what_is_for_programs_is_in_the_csv_alone(write):
    columns = (Column("shown", "shown"), Column("folded", "folded", folded=True))
    both = make_table("t", "t", columns, ((Label("here"), Label("elsewhere")),))
    assert "elsewhere" in to_csv(both)
    assert "elsewhere" not in write(both)
    assert "here" in write(both)
