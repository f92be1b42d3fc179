"""In the ServerApp: carry out a benchmark's cells, one after the other, with the same nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.files import locked
from split_unlearning.simulations import console
from split_unlearning.simulations.benchmark.cell import Cell, read_cell
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.session.envelope import Envelope


def planned_cells(benchmark: Path) -> list[Cell]:
    """Return all cells of a benchmark, in the order in which they are run.

    Raises
    ------
    UserError
        If the folder is not that of a benchmark.
    """
    path = benchmark / "benchmark.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{benchmark} is no folder of a benchmark: {error}") from error
    return [read_cell(benchmark / "cells" / str(name)) for name in names]


def carry_out_cells(benchmark: Path, carry_out: Callable[[RunConfig, Envelope], object]) -> None:
    """Carry out every cell that has not been.

    One that turns out to be impossible is taken down as failed, and the next one begun. Any other
    failure ends this: who knows what the nodes are still busy with.

    Parameters
    ----------
    benchmark : Path
        Its folder.
    carry_out : callable
        Does what a run config asks for, with the clients that the envelope tells of it, and writes
        its result.
    """
    with locked(benchmark):
        for cell in planned_cells(benchmark):
            if cell.status not in ("done", "failed"):
                _carry_out_one(cell, benchmark, carry_out)


def _carry_out_one(
    cell: Cell, benchmark: Path, carry_out: Callable[[RunConfig, Envelope], object]
) -> None:
    started = time.monotonic()
    cell.write(benchmark, status="running")
    out = str(cell.folder(benchmark))
    config = RunConfig.from_mapping({**cell.settings, "out": out})
    envelope = Envelope(cell.id, cell.clients, config.as_mapping())
    try:
        config.check()
        carry_out(config, envelope)
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        _end(cell, benchmark, started, status="failed", error=told)
        if not isinstance(error, UserError):
            raise
    else:
        _end(cell, benchmark, started, status="done")


def _end(cell: Cell, benchmark: Path, started: float, **ended: str) -> None:
    cell.write(benchmark, **ended, seconds=time.monotonic() - started)
    console.progress(f"{cell.id}: {ended['status']}")
