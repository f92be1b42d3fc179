"""A cell of a benchmark: one run, its place in the grid, and its folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.files import write_json
from split_unlearning.foundations.options import Value

SCHEMA_VERSION = 1

Role = Literal["target", "shadow"]
Status = Literal["planned", "running", "done", "failed"]

_LONGEST_NAME = 80


@dataclass(frozen=True)
class Cell:
    """One run of a benchmark.

    `settings` are the run-config keys that differ from their defaults; `coordinates` those that
    the grids of the spec name, without the seed. A ``target`` is of interest itself; an attack
    learns from a ``shadow``. `reference` is the id of the cell that retrains where this one forgets
    otherwise, empty if there is none. `error` is one line, why it failed.
    """

    clients: int
    settings: Mapping[str, Value]
    coordinates: Mapping[str, Value]
    role: Role = "target"
    status: Status = "planned"
    error: str = ""
    seconds: float = 0.0
    reference: str = ""

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.settings.get("seed", 0))

    @property
    def digest(self) -> str:
        """A short hash of its settings: no two cells of a benchmark have the same."""
        whole = json.dumps([self.clients, sorted(self.settings.items())])
        return hashlib.sha256(whole.encode()).hexdigest()[:10]

    @property
    def id(self) -> str:
        """Its coordinates, for people, and its digest.

        By it a spec that grew finds the cells that were run before.
        """
        words = "-".join(str(value) for value in (self.role, *self.coordinates.values()))
        name = re.sub(r"[^A-Za-z0-9.]+", "-", words.removeprefix("target-")).strip("-")
        return f"{name[:_LONGEST_NAME]}-seed-{self.seed}-{self.digest}"

    def folder(self, benchmark: Path) -> Path:
        """Return the folder of its figures."""
        return benchmark / "cells" / self.id

    def write(self, benchmark: Path, **changed: Any) -> Cell:
        """Write the cell, with some fields changed, to its folder; return what was written."""
        cell = replace(self, **changed)
        record = {
            "schema_version": SCHEMA_VERSION,
            "id": cell.id,
            "clients": cell.clients,
            "seed": cell.seed,
            "role": cell.role,
            "status": cell.status,
            "error": cell.error,
            "seconds": cell.seconds,
            "coordinates": dict(cell.coordinates),
            "settings": dict(cell.settings),
            "reference": cell.reference,
        }
        write_json(cell.folder(benchmark) / "cell.json", record)
        return cell


def read_cell(folder: Path) -> Cell:
    """Read a cell from its folder.

    Raises
    ------
    UserError
        If there is none, or one of another version.
    """
    path = folder / "cell.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version, status, role = record["schema_version"], record["status"], record["role"]
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} is of version {version}; this is {SCHEMA_VERSION}")
        if status not in get_args(Status) or role not in get_args(Role):
            raise UserError(f"{path} is no cell of a benchmark")
        return Cell(
            record["clients"],
            record["settings"],
            record["coordinates"],
            role,
            status,
            record["error"],
            record["seconds"],
            # A folder from before it was written down does not name it.
            record.get("reference", ""),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no cell of a benchmark: {error}") from error
