"""What ``pyproject.toml`` says of this project, in a checkout and where it is installed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import split_unlearning


def project() -> dict[str, Any]:
    """Return what this project's ``pyproject.toml`` says."""
    package = Path(split_unlearning.__file__).parent
    # The wheel carries it in the package, a checkout has it at its root.
    packaged = package / "pyproject.toml"
    path = packaged if packaged.exists() else package.parent / "pyproject.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))
