"""How every benchmark says what it measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def say(figures: Mapping[str, Any], file: Path | None) -> None:
    """Print figures as JSON, and write them to a file if there is one."""
    text = json.dumps(figures, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")
