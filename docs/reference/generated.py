"""Pages of the documentation that follow from the code: the settings, and the form of a result.

MkDocs calls `on_files` when it builds the site (``mkdocs.yml``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from split_unlearning.foundations.options import Option


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    # The checkout that the pages are of, not an older version that may be installed.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    pages = {"reference/settings.md": settings(), "reference/result.md": result()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def settings() -> str:
    """Return the page of settings: those of every run first, then each owner's."""
    from split_unlearning.simulations.keys import by_owner, general

    rooms = {"Of every run": general(), **{f"`{owner}`": of for owner, of in by_owner().items()}}
    parts = [
        "# Settings\n\n`split-unlearning run --set KEY=VALUE` and `flwr run --run-config` take "
        "these. A setting that the chosen strategy, method, model or distribution does not read is "
        "refused."
    ]
    return "\n\n".join([*parts, *(f"## {title}\n\n{_rows(of)}" for title, of in rooms.items())])


def _rows(options: Mapping[str, Option]) -> str:
    rows = [
        f"| `{key}` | `{one.default!r}` | {_escaped(one.meaning)} | {_escaped(one.description)} |"
        for key, one in options.items()
    ]
    return "\n".join(["| setting | default | meaning | allowed |", "|---|---|---|---|", *rows])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def result() -> str:
    """Return the page of ``result.json``: its JSON schema."""
    from split_unlearning.reporting.result import schema

    text = json.dumps(schema(), indent=2)
    return (
        "# result.json\n\nA run writes `result.json`; `split_unlearning.Result.read` reads it. "
        f"This is its JSON schema.\n\n```json\n{text}\n```\n"
    )
