"""What the README and the pages that it links to show is true."""

import re
from pathlib import Path

import pytest

from tests.local_grid import LocalRun

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/protocols.md", "docs/later-requests.md")
}


def test_the_strategy_of_the_readme_runs_by_dotted_path(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(# my_package.*?)```", README, flags=re.DOTALL)
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "protocol.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    said = []
    monkeypatch.setattr("split_unlearning.simulations.console.progress", said.append)
    run = LocalRun(3, strategy="my_package.protocol:Counting")
    assert "1442 samples" in said
    forgotten = len(run.prepared.forgettings[0].samples[0])
    assert run.phases[1]["samples"] == forgotten
    asked = [action for _, action in run.instructions("unlearn")]
    assert asked == ["drop", "count", "count", "count"]


@pytest.mark.parametrize("page", PAGES)
def test_the_command_lines_of_a_page_name_what_there_is(page):
    from split_unlearning.simulations.command_line.arguments import read_config

    commands = re.findall(r"^split-unlearning run (.*)$", PAGES[page], flags=re.MULTILINE)
    assert commands
    for command in commands:
        words = re.findall(r"--set (?:\"([^\"]*)\"|(\S+))", command)
        strategy = re.search(r"--strategy (\S+)", command)
        named = strategy[1] if strategy and ":" not in strategy[1] else None
        read_config([quoted or plain for quoted, plain in words], named, "results").check()


@pytest.mark.parametrize("page", ["README.md", "docs/later-requests.md"])
def test_the_requests_of_a_page_name_what_those_clients_hold(page):
    from split_unlearning.simulations.command_line.arguments import pair_requests, read_config
    from split_unlearning.simulations.preparation import deal, resolve
    from split_unlearning.unlearning.request import parse_requests

    learned, *_ = re.findall(
        r"^split-unlearning run (.*state-dir=.*)$", PAGES[page], flags=re.MULTILINE
    )
    words = re.findall(r"--set (\S+)", learned)
    dataset, plan = deal(read_config(words, None, "results"), 5)
    commands = re.findall(
        r"^split-unlearning unlearn kept ([^#\n]*)", PAGES[page], flags=re.MULTILINE
    )
    assert len(commands) >= 3
    for command in commands:
        forget = re.findall(r"--forget (\S+)", command)
        clients = [int(one) for one in re.findall(r"--client (\d+)", command)]
        for text, client in pair_requests(forget, clients, "--drop-client" in command, 0):
            (request,) = parse_requests(text, client)
            assert resolve(request, dict(enumerate(plan.train)), dataset, 0).samples


def test_every_link_of_the_documentation_leads_somewhere():
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 30
    assert [(page.name, to) for page, to in links if not (page.parent / to).exists()] == []


def test_the_architecture_names_files_that_exist_on_two_screens():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    named = set(re.findall(r"`([a-z_]+/[a-z_/.]*)`", text))
    assert len(named) > 30
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_tests_that_the_threat_model_names_are_there():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+)`", page)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []
