"""Reads the folder of a benchmark: cells, failures, and cells that are missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.reporting.cells import Cell, Json, read_cell
from split_unlearning.reporting.published.paper import PUBLISHED
from split_unlearning.reporting.result import Result

SCHEMA_VERSION = 1

_A_FOLDER = "a folder that `split-unlearning benchmark` has written"


@dataclass(frozen=True)
class Failure:
    """A cell, or a part of it, that cannot be shown, and why.

    `shadow` says whether it was trained for the membership attack alone.
    """

    id: str
    coordinates: Json
    seed: int | None
    shadow: bool
    error: str


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as it lies in its folder.

    `reduced` says what is smaller than the benchmark is about, a line each, `published` which
    published tables it can be compared with, `paper_dataset` what the paper calls its data set,
    `claims` which of the paper's claims its specification calls it fit to judge, `changed` which
    run-config keys of the specification were changed for it,
    `axes` which keys its grid varies, in the order of the specification. `cells` are done and can
    be read, without the shadows; `left_out` are settings that the specification names and that
    cannot be, and why; `missing` are ids of planned cells that have not ended.
    """

    name: str
    title: str
    command: str
    small: bool
    reduced: tuple[str, ...]
    published: tuple[str, ...]
    paper_dataset: str
    claims: tuple[str, ...]
    changed: tuple[str, ...]
    axes: tuple[str, ...]
    environment: Json
    cells: tuple[Cell, ...]
    failures: tuple[Failure, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    shadows: int
    seconds: float

    def reference(self, cell: Cell) -> Cell | None:
        """Return the cell that was retrained without what this one forgot.

        ``metrics.json`` names it; without that it is the cell that differs only in how it forgets.
        A cell that was retrained itself has none.
        """
        if cell.setting("unlearning") == "retrain":
            return None
        if cell.reference is not None:
            return next((one for one in self.cells if one.id == cell.reference), None)
        wanted = {**cell.coordinates, "unlearning": "retrain"}
        return next(
            (
                one
                for one in self.cells
                if one.coordinates == wanted
                and (one.seed, one.clients) == (cell.seed, cell.clients)
            ),
            None,
        )

    @property
    def unreferenced(self) -> tuple[Cell, ...]:
        """The cells that forgot otherwise than by retraining and have no reference."""
        return tuple(
            cell
            for cell in self.cells
            if cell.setting("unlearning") != "retrain"
            and cell.phase(1) is not None
            and self.reference(cell) is None
        )


def read_benchmark(folder: Path) -> Benchmark:
    """Read a benchmark's folder; what is broken in one cell is a failure of that cell.

    Raises
    ------
    UserError
        If the folder is none of a benchmark, is of another version, or has no finished cell.
    """
    about = _about(folder)
    cells, failures, shadows, seconds, found = [], [], 0, 0.0, set()
    planned = [str(name) for name in about.get("cells") or ()]
    paths = {path.parent.name: path for path in sorted((folder / "cells").glob("*/cell.json"))}
    # In the planned order; cells that an earlier specification left there do not count.
    for name in planned or paths:
        if name not in paths:
            continue
        path = paths[name]
        found.add(name)
        try:
            description = _read(path)
            _check_version(description, "cell.json")
            seconds += float(description.get("seconds") or 0.0)
            shadow = description.get("role", "target") == "shadow"
            status = description["status"]
            failed = Failure(
                name,
                dict(description["coordinates"]),
                int(description["seed"]),
                shadow,
                " ".join(str(description.get("error") or "no reason is given").split()),
            )
        except (OSError, LookupError, TypeError, ValueError) as error:
            failures.append(Failure(name, {}, None, False, _unreadable("cell.json", error)))
            continue
        if status in ("planned", "running"):
            found.discard(name)
        elif status != "done":
            failures.append(failed)
        elif shadow:
            shadows += 1
        else:
            cell, problem = _cell(path.parent, {**description, "id": name})
            cells += [cell] if cell else []
            failures += [replace(failed, error=problem)] if problem else []
    # A cell that was cut off has a folder without a description.
    begun = [path.name for path in sorted((folder / "cells").glob("*")) if path.is_dir()]
    missing = [name for name in planned or begun if name not in found]
    if not cells:
        reason = f"it has {len(failures)} failed and {len(missing)} missing"
        first = f"; {failures[0].id}: {failures[0].error}" if failures else ""
        raise refuse("DIR", str(folder), f"a folder with a finished cell ({reason}{first})")
    return Benchmark(
        name=str(about.get("name") or folder.name),
        title=str(about.get("title") or about.get("name") or folder.name),
        command=str(about.get("command") or ""),
        small=about.get("scale") == "small",
        reduced=_texts(about, "reduced"),
        published=_published(about),
        paper_dataset=str(about.get("paper_dataset") or ""),
        claims=_texts(about, "claims"),
        changed=_texts(about, "changed"),
        axes=_texts(about, "axes"),
        environment=dict(about.get("environment") or {}),
        cells=tuple(cells),
        failures=tuple(failures),
        left_out=tuple(_left_out(one) for one in about.get("left_out") or ()),
        missing=tuple(missing),
        shadows=shadows,
        seconds=seconds,
    )


def _about(folder: Path) -> dict[str, Any]:
    """Return ``benchmark.json``."""
    try:
        about = _read(folder / "benchmark.json")
        _check_version(about, "benchmark.json")
        dict(about.get("environment") or {})
    except (OSError, TypeError, ValueError) as error:
        raise refuse(
            "DIR", str(folder), f"{_A_FOLDER} ({_unreadable('benchmark.json', error)})"
        ) from error
    return about


def _cell(folder: Path, description: Json) -> tuple[Cell | None, str]:
    """Return a done cell and what is wrong with its files; None if it cannot be read at all."""
    problem, metrics = "", None
    try:
        metrics = _read(folder / "metrics.json")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError) as error:
        problem = _unreadable("metrics.json", error)
    try:
        result = Result.read(folder / "result.json")
        plain = read_cell(description, result, None)
    except (OSError, LookupError, TypeError, ValueError) as error:
        return None, _unreadable("result.json", error)
    if metrics is None:
        return plain, problem
    try:
        _check_version(metrics, "metrics.json")
        return read_cell(description, result, metrics), problem
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return plain, _unreadable("metrics.json", error)


def _read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise TypeError("it holds no mapping")
    return found


def _check_version(found: Json, name: str) -> None:
    version = found.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version of {name} is {version!r}; allowed: {SCHEMA_VERSION}")


def _unreadable(name: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{name} is not there"
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return " ".join(f"{name} cannot be read ({kind}{error})".split())


def _texts(about: Json, key: str) -> tuple[str, ...]:
    found = about.get(key) or ()
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise UserError(
            f"benchmark.json: {key}={found!r} is not possible; allowed: a list of texts"
        )
    return tuple(map(str, found))


def _published(about: Json) -> tuple[str, ...]:
    """Return which published tables are compared with; all, where the key is not there."""
    if about.get("paper") is None:
        return PUBLISHED
    named = _texts(about, "paper")
    for one in named:
        if one not in PUBLISHED:
            raise refuse("paper", one, ", ".join(PUBLISHED))
    return named


def _left_out(one: Json) -> str:
    where = ", ".join(f"{key} {value}" for key, value in dict(one["coordinates"]).items())
    return f"{where}: {one['why']}"
