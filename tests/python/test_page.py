"""The examples of docs/python.md run, in their order."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


def blocks(language):
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the examples print, run as one script in an empty folder."""
    folder = tmp_path_factory.mktemp("page")
    script = ModuleType("a_script")
    printed = []
    script.print = lambda *values: printed.append(" ".join(map(str, values)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(sys.modules, script.__name__, script)
        for code in blocks("python"):
            exec(compile(code, PAGE, "exec"), vars(script))
    return printed


def test_the_examples_run_and_print_what_the_page_shows(printed):
    found = without_shares("\n".join(printed))
    for shown in blocks("text"):
        assert without_shares(shown.strip("\n")) in found


def without_shares(text):
    """Shares differ from one kind of processor to the next."""
    return re.sub(r"\b[01]\.\d+", "SHARE", text)


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch):
    text = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import split_unlearning.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"print": lambda *_: None})
    assert (tmp_path / "run.png").exists()


def test_the_errors_are_those_of_the_page(printed):
    said = re.findall(r"print\(error\)\s+# (.*)", PAGE.read_text(encoding="utf-8"))
    assert said
    assert {*said} <= {*printed}
