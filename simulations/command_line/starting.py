"""Have an engine carry a run out, and show its result."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from split_unlearning.foundations.files import write_durably
from split_unlearning.simulations.command_line.ending import RUN_FAILED, end
from split_unlearning.simulations.command_line.progress import shown

if TYPE_CHECKING:
    from split_unlearning.simulations.config import RunConfig
    from split_unlearning.simulations.launching.launch import Engine


def launched(
    config: RunConfig,
    clients: int,
    engine: Engine,
    folder: Path,
    verbose: bool,
    hint: str = "",
) -> float:
    """Have an engine carry a run out, and show how far it is; return the seconds that it took.

    If it fails, end with the reason and a hint; the log is in the folder.
    """
    start = time.monotonic()
    with shown(verbose) as on_line:
        outcome = engine(config.as_mapping(), clients, on_line=on_line)
    if not outcome.succeeded:
        log = folder / "log.txt"
        # It may lie in a state-dir, where everything is for its owner only.
        with suppress(OSError):
            write_durably(log, outcome.log.encode())
        end(f"error: {outcome.error} (log: {log}){hint}", RUN_FAILED)
    return time.monotonic() - start


def show_result(folder: Path, seconds: float, verbose: bool) -> None:
    """Print the result that is in a folder, and what it took."""
    from split_unlearning.reporting.result import Result
    from split_unlearning.reporting.terminal import render

    path = folder / "result.json"
    if not verbose:
        typer.echo(render(Result.read(path)))
    typer.echo(f"{seconds:.0f} s; all figures are in {path}")
