"""A benchmark's spec: a TOML file that names a grid of runs."""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import split_unlearning
from split_unlearning.foundations.errors import IgnoredError, UserError, refuse
from split_unlearning.foundations.options import Value
from split_unlearning.foundations.text import parsed
from split_unlearning.reporting.published.conditions import CLAIMS
from split_unlearning.reporting.published.paper import PUBLISHED
from split_unlearning.simulations.benchmark.cell import Cell
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.paths import from_here
from split_unlearning.simulations.preparation import prepare
from split_unlearning.unlearning.methods import METHODS

SCALES = ("full", "medium", "small")

_TOP = ("title", "clients", "paper", "paper-dataset", "claims", "run", "grid", "shadows", "reduced")
_SHADOWS = ("count", "share")
# Keys that a benchmark sets itself.
_NOT_IN_A_CELL = (
    "out",
    "overwrite",
    "state-dir",
    "key-dir",
    "verify",
    "benchmark",
    "shadow",
    "shadow-share",
)


@dataclass(frozen=True)
class Spec:
    """What a benchmark is to run.

    `name` is for files, `title` for people. At the scale ``medium`` it is reduced for a machine
    with a GPU, at ``small`` for a small one; `reduced` says what was reduced, a line each. `paper`
    are the published tables that it is held against, which call the data set `paper_dataset`.
    `claims` are the claims of the paper that its runs can judge as they are, and `changed` the
    run-config keys that were set for it besides. `axes` are the keys to which its grids give
    several values, without the seed.

    Each cell is run once, seed by seed; shadow runs come last in a seed. `left_out` holds the
    ``coordinates`` of each run that a grid names and that is not possible, and ``why``.
    """

    name: str
    title: str
    scale: str
    reduced: Sequence[str]
    paper: Sequence[str]
    paper_dataset: str
    axes: Sequence[str]
    cells: Sequence[Cell]
    left_out: Sequence[Mapping[str, Any]]
    claims: Sequence[str] = ()
    changed: Sequence[str] = ()


def shipped_specs() -> dict[str, Path]:
    """Return the files of the specs that are shipped, by name."""
    package = Path(split_unlearning.__file__).parent
    # The wheel carries them in the package, a checkout beside its benchmarks.
    packaged = package / "specs"
    folder = packaged if packaged.exists() else package.parent / "benchmarks" / "specs"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def titles() -> dict[str, str]:
    """Return the titles of the specs that are shipped, by name."""
    files = shipped_specs()
    return {name: tomllib.loads(files[name].read_text("utf-8"))["title"] for name in files}


def find_spec(named: str) -> Path:
    """Return the file of a spec, from its path or the name of a shipped spec.

    Raises
    ------
    UserError
        If it is neither.
    """
    path, shipped = Path(named), shipped_specs()
    if path.is_file():
        return path
    if named not in shipped:
        raise refuse("SPEC", named, f"a TOML file, or one of {', '.join(shipped)}")
    return shipped[named]


def read_spec(path: Path, scale: str, changed: Mapping[str, Value]) -> Spec:
    """Read a spec and work out its cells.

    At another scale than ``full``, the table of that name goes before the rest: keys one by one,
    grids as a whole. The run-config keys in `changed` go before the spec's table ``run``.

    Raises
    ------
    UserError
        If it does not read, or names a run that cannot be.
    """
    try:
        written = parsed(tomllib.loads, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no spec of a benchmark: {error}") from error
    return make_spec(path, written, scale, changed)


def make_spec(
    path: Path, written: Mapping[str, Any], scale: str, changed: Mapping[str, Value]
) -> Spec:
    """Work out the cells of a spec that has been read, as `read_spec`; `path` is for its name.

    Raises
    ------
    UserError
        As `read_spec`.
    """
    if scale not in SCALES:
        raise refuse("--scale", scale, ", ".join(SCALES))
    written = dict(written)
    reduced = {name: written.pop(name) for name in SCALES if name in written}
    if scale in reduced:
        _check_names(path, scale, reduced[scale], _TOP)
        run = {**written.get("run", {}), **reduced[scale].get("run", {})}
        # What full runs can judge, reduced ones may not.
        written = {**written, "claims": [], **reduced[scale], "run": run}
    elif scale != "full":
        there = ", ".join(["full", *reduced])
        raise UserError(f"{path} has no table {scale}; allowed: --scale {there}")
    _check_names(path, "a spec", written, (*_TOP, *SCALES[1:]))
    reader = _Reader(path, written, changed)
    cells, left_out = reader.cells()
    if not cells:
        raise UserError(f"{path} names no run that can be")
    return Spec(
        name=path.stem,
        title=reader.text("title", path.stem),
        scale=scale,
        reduced=reader.texts("reduced"),
        paper=reader.texts("paper", PUBLISHED),
        paper_dataset=reader.text("paper-dataset", ""),
        claims=reader.texts("claims", CLAIMS),
        changed=sorted(changed),
        axes=reader.axes,
        cells=cells,
        left_out=left_out,
    )


class _Reader:
    """Takes a spec apart."""

    def __init__(
        self, path: Path, written: Mapping[str, Any], changed: Mapping[str, Value]
    ) -> None:
        self._path, self._written = path, written
        self._run = {**self._table("run", written.get("run", {})), **changed}
        self._grids = written.get("grid", [])
        if not isinstance(self._grids, list) or not self._grids:
            raise UserError(f"{path} has no grid; allowed: one [[grid]] or more")
        self._shadows = self._table("shadows", written.get("shadows", {}))
        _check_names(path, "shadows", self._shadows, _SHADOWS)
        values: dict[str, list[Value]] = {}
        for grid in self._grids:
            for key, value in self._table("grid", grid).items():
                known = values.setdefault(key, [])
                known += [new for new in _listed(value) if new not in known]
        varied = [key for key in values if len(values[key]) > 1]
        self.axes = [key for key in varied if key not in ("seed", "only-possible")]

    def text(self, key: str, default: str) -> str:
        value = self._written.get(key, default)
        if not isinstance(value, str):
            raise self._refuse(key, value, "a text")
        return value

    def texts(self, key: str, known: Sequence[str] = ()) -> list[str]:
        """Return a list of texts, each one of the `known` if there are any."""
        value = self._written.get(key, [])
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            raise self._refuse(key, value, "a list of texts")
        for text in value:
            if known and text not in known:
                raise self._refuse(key, text, ", ".join(known))
        return value

    def cells(self) -> tuple[list[Cell], list[dict[str, Any]]]:
        """Return every run that the grids name, each once, and those that are not possible."""
        targets: dict[str, Cell] = {}
        left_out: list[dict[str, Any]] = []
        for grid in self._grids:
            possible = grid.get("only-possible", False)
            if not isinstance(possible, bool):
                raise self._refuse("only-possible", possible, "true, false")
            for point in self._points(grid):
                try:
                    cell = self._cell(point)
                except UserError as error:
                    coordinates = _without_seed(point)
                    if not possible:
                        where = ", ".join(f"{key}={value!r}" for key, value in point.items())
                        advice = _advice(error) if isinstance(error, IgnoredError) else ""
                        raise UserError(f"{self._path}, at {where}: {error}{advice}") from error
                    if coordinates not in [known["coordinates"] for known in left_out]:
                        left_out.append({"coordinates": coordinates, "why": str(error)})
                    continue
                targets.setdefault(cell.digest, cell)
        shadows: dict[str, Cell] = {}
        for target in targets.values():
            for shadow in self._shadows_of(target):
                shadows.setdefault(shadow.digest, shadow)
        # Seed by seed: a benchmark that is cut off has something of every row.
        seeds = list(dict.fromkeys(cell.seed for cell in targets.values()))
        every = [*targets.values(), *shadows.values()]
        return sorted(every, key=lambda cell: seeds.index(cell.seed)), left_out

    def _points(self, grid: Mapping[str, Any]) -> Iterator[dict[str, Value]]:
        """Yield every combination of a grid's values."""
        keys = [key for key in grid if key not in ("seed", "only-possible")]
        values = [_listed(grid[key]) for key in keys]
        for seed in _listed(grid.get("seed", self._run.get("seed", 0))):
            for chosen in product(*values):
                yield {**dict(zip(keys, chosen, strict=True)), "seed": seed}

    def _cell(self, point: Mapping[str, Value]) -> Cell:
        settings = {**self._run, **point}
        clients = settings.pop("clients", self._written.get("clients", 5))
        if type(clients) is not int or clients < 1:
            raise self._refuse("clients", clients, "an integer >= 1")
        for key in _NOT_IN_A_CELL:
            if key in settings:
                raise self._refuse(key, settings[key], "nothing: the benchmark says that itself")
        if self._count:
            settings["shadow-share"] = self._shadows.get("share", 0.5)
        return Cell(clients, _checked(from_here(settings), clients), _without_seed(point))

    @property
    def _count(self) -> int:
        count = self._shadows.get("count", 0)
        if type(count) is not int or count < 0:
            raise self._refuse("count", count, "an integer >= 0")
        return count

    def _shadows_of(self, target: Cell) -> Iterator[Cell]:
        """Yield the runs on other data from which an attack on a target learns.

        They also serve targets that differ from it only in how they forget.
        """
        for number in range(1, self._count + 1):
            try:
                settings = _checked(shadowed(target.settings, number), target.clients)
            except UserError as error:
                raise UserError(f"{self._path}, shadow {number} of {target.id}: {error}") from error
            yield Cell(target.clients, settings, target.coordinates, "shadow")

    def _table(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._refuse(name, value, "a table")
        return value

    def _refuse(self, key: str, value: object, allowed: str) -> UserError:
        return UserError(f"{self._path}: {key}={value!r} is not possible; allowed: {allowed}")


def _advice(ignored: IgnoredError) -> str:
    """Say how a spec gives a setting to the rows alone that read it."""
    return (
        f"; put {ignored.key} in a [[grid]] of its own, for {ignored.readers}; or "
        "only-possible = true leaves out the rows that cannot be"
    )


def retrained(settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return the run config of the run that forgets by training again, all else being equal.

    Keys and settings that only the unlearning method reads are left out.
    """
    config = RunConfig.from_mapping(settings)
    read, plugged = config.keys_read("retrain"), config.plugged("retrain")
    kept = {key: value for key, value in settings.items() if key in read}
    words = [word for word in shlex.split(config.options) if word.partition("=")[0] in plugged]
    options = config.options if config.unlearning == "retrain" else shlex.join(words)
    return _changed(RunConfig.from_mapping({**kept, "options": options, "unlearning": "retrain"}))


def referring(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells, each with the id of the one that is its reference, empty if there is none.

    The reference is the run that forgets by training again, all else being equal.
    """
    known = {cell.digest: cell.id for cell in cells}
    return [replace(cell, reference=_reference(cell, known)) for cell in cells]


def _reference(cell: Cell, known: Mapping[str, str]) -> str:
    again = retrained(cell.settings)
    # A strategy that a method needs in the place of another retrains as the other does, bit for
    # bit: one reference serves both.
    strategy = again.get("strategy", RunConfig().strategy)
    method = METHODS.get(str(cell.settings.get("unlearning", "retrain")))
    alike = {strategy}
    for pair in method.carried_out_by.items():
        alike |= {*pair} if strategy in pair else set()
    for name in sorted(alike, key=lambda name: name != strategy):
        beside = Cell(
            cell.clients, _changed(RunConfig.from_mapping({**again, "strategy": name})), {}
        )
        if beside.digest in known:
            return known[beside.digest]
    return ""


def shadowed(settings: Mapping[str, Value], number: int) -> dict[str, Value]:
    """Return the run config of a shadow run, from whose outputs an attack learns.

    An attacker knows how a model was trained, not how it was made to forget: a shadow run forgets
    by training again.
    """
    return {**retrained(settings), "shadow": number}


def _checked(settings: Mapping[str, Value], clients: int) -> dict[str, Value]:
    """Return the keys whose values are not the defaults, if that can be run."""
    config = RunConfig.from_mapping({**settings, "out": os.sep})
    prepare(config, clients)
    return _changed(replace(config, out=""))


def _changed(config: RunConfig) -> dict[str, Value]:
    """Return the keys whose values are not the defaults."""
    defaults = RunConfig().as_mapping()
    return {key: value for key, value in config.as_mapping().items() if value != defaults[key]}


def _without_seed(point: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in point.items() if key != "seed"}


def _listed(value: Any) -> list[Value]:
    return cast(list[Value], value) if isinstance(value, list) else [value]


def _check_names(path: Path, where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"{path}: {where} knows no {name}; {hint}")
