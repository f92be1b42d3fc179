"""What the README shows is true."""

import re
from pathlib import Path

from tests.local_grid import LocalRun

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_strategy_of_the_readme_runs_by_dotted_path(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
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


def test_the_command_lines_of_the_readme_name_what_there_is():
    from split_unlearning.simulations.command_line.arguments import read_config

    commands = re.findall(r"^split-unlearning run (.*)$", README, flags=re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        words = re.findall(r"--set (?:\"([^\"]*)\"|(\S+))", command)
        strategy = re.search(r"--strategy (\S+)", command)
        named = strategy[1] if strategy and ":" not in strategy[1] else None
        read_config([quoted or plain for quoted, plain in words], named, "results").check()


def test_the_requests_of_the_readme_name_what_those_clients_hold():
    from split_unlearning.simulations.command_line.arguments import pair_requests, read_config
    from split_unlearning.simulations.preparation import deal, resolve
    from split_unlearning.unlearning.request import parse_requests

    (learned,) = re.findall(r"^split-unlearning run (.*state-dir=.*)$", README, flags=re.MULTILINE)
    words = re.findall(r"--set (\S+)", learned)
    dataset, plan = deal(read_config(words, None, "results"), 5)
    commands = re.findall(r"^split-unlearning unlearn kept ([^#\n]*)", README, flags=re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        forget = re.findall(r"--forget (\S+)", command)
        clients = [int(one) for one in re.findall(r"--client (\d+)", command)]
        for text, client in pair_requests(forget, clients, "--drop-client" in command, 0):
            (request,) = parse_requests(text, client)
            assert resolve(request, dict(enumerate(plan.train)), dataset, 0).samples
