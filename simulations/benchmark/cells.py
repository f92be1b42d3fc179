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
    """Carry out every unfinished cell of a benchmark.

    `carry_out` runs a run config with the clients that the envelope names, and writes its result.
    A cell that turns out to be impossible is written down as failed, and the next cell begun. Any
    other failure ends the benchmark: the nodes may still be busy.
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
    config = RunConfig.from_mapping({**cell.settings, "out": out, "overwrite": True})
    envelope = Envelope(cell.id, cell.clients, config.as_mapping())
    try:
        config.check()
        carry_out(config, envelope)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        _end(cell, benchmark, started, status="failed", error=reason)
        if not isinstance(error, UserError):
            raise
    else:
        _end(cell, benchmark, started, status="done")


def _end(cell: Cell, benchmark: Path, started: float, **ended: str) -> None:
    cell.write(benchmark, **ended, seconds=time.monotonic() - started)
    console.progress(f"{cell.id}: {ended['status']}")
