"""Carry out a benchmark: one start of Ray for the whole grid, every cell kept as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.files import locked, write_json
from split_unlearning.simulations.benchmark.cell import SCHEMA_VERSION, Cell, Status
from split_unlearning.simulations.benchmark.cells import planned_cells
from split_unlearning.simulations.benchmark.spec import Spec, referring
from split_unlearning.simulations.console import PROGRESS
from split_unlearning.simulations.launching.launch import Engine

# Processes of a command that was killed end a little later than it.
_PATIENCE = 20.0


@dataclass(frozen=True)
class Progress:
    """How far a benchmark is when a cell has ended.

    `ended` counts the cells that have ended, one way or another, before this start or after. The
    others take `seconds_left`, if they take as long as those since the start.
    """

    cell: Cell
    ended: int
    seconds_left: float

    @property
    def text(self) -> str:
        """The cell, and how it ended."""
        how = f"failed: {self.cell.error}" if self.cell.error else f"{self.cell.seconds:.1f} s"
        return f"{self.cell.id}: {how}"


def lay_out(spec: Spec, folder: Path, resume: bool, command: str) -> list[Cell]:
    """Write down what is to be run, before anything is; return all cells.

    The folder is made if it is not there. With `resume`, cells that are done are not run again,
    those that failed are. People can repeat the command.

    Raises
    ------
    UserError
        If the folder holds a benchmark that is not to be resumed, or something else, or another
        process is at work in it.
    """
    there = folder / "benchmark.json"
    if there.exists() and not resume:
        raise refuse("--out", str(folder), "a new folder, or --resume to go on with what is there")
    if not there.exists() and folder.exists() and any(folder.iterdir()):
        raise refuse("--out", str(folder), "a new folder, or an empty one")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, _PATIENCE):
        return _lay_out(spec, folder, command)


def _lay_out(spec: Spec, folder: Path, command: str) -> list[Cell]:
    there = folder / "benchmark.json"
    known = {cell.id: cell for cell in planned_cells(folder)} if there.exists() else {}
    cells = []
    for cell in referring(spec.cells):
        before = known.get(cell.id)
        if before is None or before.status != "done":
            before = cell.write(folder)
        elif before.reference != cell.reference:
            before = before.write(folder, reference=cell.reference)
        cells.append(before)
    write_json(
        there,
        {
            "schema_version": SCHEMA_VERSION,
            "name": spec.name,
            "title": spec.title,
            "scale": spec.scale,
            "reduced": list(spec.reduced),
            "paper": list(spec.paper),
            "paper_dataset": spec.paper_dataset,
            "claims": list(spec.claims),
            "changed": list(spec.changed),
            "axes": list(spec.axes),
            "left_out": list(spec.left_out),
            "command": command,
            "cells": [cell.id for cell in cells],
        },
    )
    return cells


def carry_out(
    folder: Path,
    engine: Engine,
    *,
    on_line: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> str:
    """Run every unfinished cell of a benchmark; those that fail do not stop the others.

    Returns
    -------
    str
        Why it ended before its last cell; empty if it did not.
    """
    watch = _Watch(folder, on_progress)
    while left := watch.unfinished():

        def on_each(line: str) -> None:
            on_line(line)
            if line.startswith(PROGRESS):
                watch.look()

        most = max(cell.clients for cell in left)
        outcome = engine({"benchmark": str(folder)}, most, on_line=on_each)
        if not outcome.succeeded:
            with (folder / "log.txt").open("a", encoding="utf-8") as log:
                log.write(outcome.log)
        for cell in watch.unfinished():
            if cell.status == "running":
                cell.write(folder, status="failed", error=outcome.error or "the run ended in it")
        watch.look()
        if not outcome.succeeded and len(watch.unfinished()) == len(left):
            return outcome.error
    return ""


def failures(folder: Path) -> list[str]:
    """Return a line for each cell of a benchmark that failed."""
    cells = planned_cells(folder)
    return [f"failed: {cell.id}: {cell.error}" for cell in cells if cell.status == "failed"]


def unreferenced(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that forget and that no run of the benchmark retrains beside."""
    return [
        cell
        for cell in cells
        if cell.role == "target" and not cell.reference and cell.settings.get("forget") != ""
    ]


class _Watch:
    """Sees which cells have ended."""

    def __init__(self, folder: Path, on_progress: Callable[[Progress], None]) -> None:
        self._folder, self._on_progress = folder, on_progress
        self._started = time.monotonic()
        self._seen = {cell.id for cell in self._ended()}
        self._before = len(self._seen)

    def unfinished(self) -> list[Cell]:
        return [cell for cell in planned_cells(self._folder) if not _has_ended(cell.status)]

    def look(self) -> None:
        """Report cells that have ended since the last look."""
        for cell in self._ended():
            if cell.id not in self._seen:
                self._seen.add(cell.id)
                self._report(cell)

    def _ended(self) -> list[Cell]:
        return [cell for cell in planned_cells(self._folder) if _has_ended(cell.status)]

    def _report(self, cell: Cell) -> None:
        here = len(self._seen) - self._before
        each = (time.monotonic() - self._started) / here
        left = each * (len(planned_cells(self._folder)) - len(self._seen))
        self._on_progress(Progress(cell, len(self._seen), left))


def _has_ended(status: Status) -> bool:
    return status in ("done", "failed")
