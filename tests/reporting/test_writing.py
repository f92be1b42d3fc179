"""A whole report: what is written, that it needs nothing else, that nothing in it can break it."""

import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from split_unlearning.foundations.files import write_json
from split_unlearning.reporting.writing import write_report
from split_unlearning.simulations.cli import app
from tests.local_grid import LocalRun
from tests.reporting.synthetic import Bench, client, matching, membership, metrics, phase

ROOT = Path(__file__).resolve().parents[2]
NASTY = "<script>alert('1')</script><img src=x onerror=alert(1)> a|b & c_d 100% $y$ \"q\"\u0000"


def fill(bench):
    """Write one of everything."""
    epochs = [{"epoch": number, "unlearned": 0.5, "retained": 0.6} for number in range(1, 20)]
    attacks = [{"name": "kmeans elbow", "clusters": 2, "inclusive": 1.0, "perfect": 0.5}]
    told = metrics(
        membership=membership(0.5, 0.6),
        membership_before=membership(0.9, 0.9),
        membership_reference=membership(0.5, 0.5),
        divergence={"forgotten": 0.2, "retained": 0.1, "test": 0.1},
    )
    for strategy in ("vanilla", "splitwiper", "splitwiper-plus", "my_package.protocol:Mine"):
        for unlearning in ("retrain", "fine-tune"):
            for epsilon in ("0.1", "0.2"):
                for seed in range(2):
                    bench.cell(
                        phase(by_epoch=epochs, label_matching=matching(attacks)),
                        phase(1, forgotten=0.1 * seed, clients=[client(0, True, up=9), client(1)]),
                        metrics=told,
                        strategy=strategy,
                        unlearning=unlearning,
                        epsilon=epsilon,
                        server_epochs=5 if epsilon == "0.1" else 10,
                        model="vgg",
                        dataset="cifar10",
                        seed=seed,
                        distribution={"labels": ["a", "b"], "train": [[3, 0], [0, 4]]},
                    )
    bench.describe({"strategy": "u-shaped"}, 0, status="failed", error="no memory")
    return bench


class Page(HTMLParser):
    """Takes down elements, ids, links and all text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.text = [], [], [], ""
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            # The page's policy allows no style but that of its head.
            assert name != "style"
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "srcset", "data", "action"):
                self.links.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta",):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    about = {"scale": "small", "reduced": ["two of ten"], "axes": ["server-epochs", "epsilon"]}
    bench = fill(Bench(tmp_path_factory.mktemp("full"), **about))
    write_report(bench.folder)
    return bench.folder


def read(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_whole_and_its_links_lead_somewhere(full):
    page = read(full)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (full / link).is_file(), link


def test_the_page_needs_nothing_else(full):
    text = (full / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {"script", "link", "img", "iframe", "object", "base", "form"}.isdisjoint(page.tags)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert unescape(policy) == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert page.tags.count("style") == 1
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_head_says_what_was_run_and_what_is_smaller(full):
    page = read(full)
    for said in ("Made up", "32 cells", "2 seeds", "1 failed", "A small version.", "two of ten"):
        assert said in page.text
    assert "split-unlearning benchmark made-up.toml" in page.text
    assert "1.41.0" in page.text
    assert "no memory" in page.text


def test_every_picture_is_a_file_too_in_three_formats(full):
    files = {path.name for path in (full / "figures").iterdir()} - {".written"}
    stems = {name.rpartition(".")[0] for name in files}
    assert files == {f"{stem}.{kind}" for stem in stems for kind in ("pdf", "svg", "png")}
    assert {"forgetting-against-cost", "by-epsilon-1", "membership-roc-6"} <= stems
    assert {f"figures/{name}" for name in files} <= set(read(full).links)


def test_every_table_is_there_in_three_formats_and_every_figure_as_data(full):
    files = {path.name for path in (full / "tables").iterdir()} - {".written"}
    stems = {name.rpartition(".")[0] for name in files}
    for stem in stems:
        kinds = {name.rpartition(".")[2] for name in files if name.rpartition(".")[0] == stem}
        assert kinds == ({"csv"} if stem.startswith("figure-") else {"csv", "md", "tex"})
    assert {
        "accuracy",
        "cost-learn",
        "cost-request-1",
        "membership-request-1",
        "distance-request-1",
        "label-matching-learn",
        "paper-claims",
        "failures",
        "figure-accuracy-by-epoch",
        "figure-by-server-epochs",
        "figure-by-epsilon",
        "figure-forgetting-against-cost",
        "figure-label-distribution",
        "figure-label-matching",
        "figure-membership-roc",
    } <= stems
    assert {f"figure-{one}" for one in ("membership-roc", "by-epsilon")} <= set(read(full).ids)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
@pytest.mark.parametrize("of", ["full", "nasty"])
def test_latex_sets_every_table(of, full, tmp_path):
    folder = full
    if of == "nasty":
        bench = Bench(tmp_path / "nasty", title=NASTY)
        bench.cell(phase(), phase(1), strategy=NASTY, note="é ~ ^ \\ { } # & % _ $ < >")
        folder = bench.folder
        write_report(folder)
    tables = sorted((folder / "tables").glob("*.tex"))
    assert len(tables) > 2
    inputs = "".join(f"\\input{{{table}}}\n\\clearpage\n" for table in tables)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,textcomp}\n"
        f"\\begin{{document}}\n{inputs}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    told = done.stdout.decode(errors="replace")
    assert done.returncode == 0, told[-2000:]
    assert "Missing character" not in told


def test_every_picture_says_in_words_what_it_shows(full):
    text = (full / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<svg[^>]*>", text)
    assert pictures
    assert all('role="img"' in one or 'aria-hidden="true"' in one for one in pictures)


def test_the_same_folder_gives_the_same_report(tmp_path):
    bench = Bench(tmp_path)
    for unlearning in ("retrain", "fine-tune"):
        dealt = {"labels": ["a", "b"], "train": [[3, 0], [0, 4]]}
        bench.cell(
            unlearning=unlearning, metrics=metrics(membership=membership()), distribution=dealt
        )

    def report():
        write_report(tmp_path)
        parts = (tmp_path, tmp_path / "tables", tmp_path / "figures")
        return {path: path.read_bytes() for part in parts for path in part.glob("*.*")}

    first = report()
    assert len(first) > 20
    assert report() == first


def test_a_plug_ins_row_is_like_any_other(full):
    text = (full / "report.html").read_text(encoding="utf-8")
    assert '<abbr title="my_package.protocol:Mine">Mine</abbr>' in text
    assert "my_package.protocol:Mine" in (full / "tables" / "accuracy.csv").read_text()
    assert "| Mine |" in (full / "tables" / "accuracy.md").read_text()


def test_what_an_earlier_report_wrote_is_gone_and_nothing_else(tmp_path):
    bench = Bench(tmp_path)
    bench.cell(strategy="vanilla")
    name = bench.describe({"strategy": "u-shaped"}, 0, status="failed", error="no memory")
    write_report(tmp_path)
    mine = tmp_path / "tables" / "notes.md"
    mine.write_text("mine")
    assert (tmp_path / "tables" / "failures.csv").exists()
    bench.describe({"strategy": "u-shaped"}, 0, id=name, role="shadow")
    write_report(tmp_path)
    assert not (tmp_path / "tables" / "failures.csv").exists()
    assert mine.exists()
    assert not list((tmp_path / "figures").glob("*.png"))
    assert "failed" not in read(tmp_path).text.replace("0 failed", "")


def test_a_list_of_files_cannot_lead_out_of_the_folder(tmp_path):
    bench = Bench(tmp_path / "bench")
    bench.cell(strategy="vanilla")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    bench.write("tables/.written", "../../victim\n..\n.\n\n")
    write_report(bench.folder)
    assert victim.read_text() == "mine"


texts = st.one_of(st.just(NASTY), st.text(min_size=1, max_size=20))


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(texts, texts)
def test_no_text_in_the_files_breaks_the_report(tmp_path_factory, one, other):
    bench = Bench(tmp_path_factory.mktemp("nasty"), title=one, reduced=[other], command=one)
    told = metrics(divergence={"forgotten": 0.5})
    bench.cell(strategy="vanilla", unlearning="retrain", model=one)
    tuned = {"strategy": "vanilla", "unlearning": "fine-tune", "model": one}
    bench.cell(phase(), phase(1, other), metrics=told, **tuned)
    bench.cell(strategy=other, unlearning="retrain", model=one + other)
    bench.describe({"strategy": one, "model": other}, 0, status="failed", error=other)
    write_report(bench.folder)
    page = read(bench.folder)
    assert page.open == []
    assert {"script", "img"}.isdisjoint(page.tags)


def test_a_cell_with_nothing_but_its_result_is_enough(tmp_path):
    bench = Bench(tmp_path)
    (tmp_path / "benchmark.json").write_text('{"schema_version": 1}')
    bench.cell(phase(), strategy="vanilla")
    write_report(tmp_path)
    page = read(tmp_path)
    assert "1 cell" in page.text
    assert "membership" not in page.ids


def test_the_report_of_a_real_run(tmp_path):
    bench = Bench(tmp_path)
    for strategy in ("splitwiper", "vanilla"):
        where = {"strategy": strategy, "unlearning": "retrain"}
        run = LocalRun(2, pretrain_epochs=1, server_epochs=5, forget="class:2", **where)
        name = bench.describe(where, run.result["config"]["seed"], clients=2)
        write_json(tmp_path / "cells" / name / "result.json", run.result)
    content = write_report(tmp_path)
    assert content.benchmark.failures == ()
    verdicts = {claim.text: claim.verdict for claim in content.claims}
    assert verdicts["Forgetting costs the other clients nothing (splitwiper, splitwiper-plus)"] == (
        "holds"
    )
    dealt = (tmp_path / "tables" / "figure-label-distribution.csv").read_text().splitlines()
    assert len(dealt) == 1 + 2 * 10
    samples = sum(int(line.rpartition(",")[2]) for line in dealt[1:])
    assert samples == sum(map(sum, run.result["distribution"]["train"])) > 1000


def _invoke(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_says_where_the_report_is(tmp_path):
    bench = Bench(tmp_path, cells=["cell-000", "cell-001", "cell-002"])
    bench.cell(strategy="vanilla")
    bench.describe({"strategy": "u-shaped"}, 0, status="failed", error="no memory")
    told = _invoke(tmp_path)
    assert told.exit_code == 0
    report = tmp_path / "report.html"
    assert "1 cell failed, and 1 cell did not end" in read(tmp_path).text
    assert told.stdout == f"1 cell, 1 failed, 1 missing; the report is {report}\n"
    assert report.exists()


def test_a_folder_that_is_none_of_a_benchmark_is_one_line(tmp_path):
    Bench(tmp_path / "empty")
    for folder in (tmp_path, tmp_path / "empty", tmp_path / "nowhere"):
        told = _invoke(folder)
        assert told.exit_code == 2
        (line,) = told.stderr.splitlines()
        assert line.startswith("error: DIR=")
        assert not (folder / "report.html").exists()


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    Bench(tmp_path).cell(strategy="vanilla")
    (tmp_path / "tables").write_text("in the way")
    told = _invoke(tmp_path)
    assert told.exit_code == 1
    assert len(told.stderr.splitlines()) == 1


def test_a_report_needs_neither_flower_nor_torch(tmp_path):
    Bench(tmp_path).cell(strategy="vanilla")
    code = (
        "import sys; from pathlib import Path\n"
        "from split_unlearning.reporting.writing import write_report\n"
        "write_report(Path(sys.argv[1]))\n"
        "print({'flwr', 'ray', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"


def test_an_installed_package_has_the_papers_tables_and_the_pages_style(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as packed:
        names = set(packed.namelist())
    published = {path.name for path in (ROOT / "reporting/published").glob("*.csv")}
    assert len(published) == 4
    assert {f"split_unlearning/reporting/published/{name}" for name in published} <= names
    of_the_page = ("page.css", "page.html.j2", "figures/report.mplstyle")
    assert {f"split_unlearning/reporting/{name}" for name in of_the_page} <= names
    top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"split_unlearning"}


def test_a_benchmark_without_an_environment_has_that_of_its_cells(tmp_path):
    bench = Bench(tmp_path, environment={})
    name = bench.cell(strategy="vanilla")
    path = tmp_path / "cells" / name / "result.json"
    other = json.loads(path.read_text())
    bench.cell(strategy="splitwiper")
    other["environment"]["torch"] = "2.10"
    path.write_text(json.dumps(other))
    write_report(tmp_path)
    assert "2.10 / 2.9" in read(tmp_path).text
