"""``split-unlearning benchmark``, and ``report``, which it ends with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from split_unlearning.simulations.command_line.arguments import (
    check_writable,
    read_settings,
)
from split_unlearning.simulations.command_line.ending import RUN_FAILED, end, one_line_errors
from split_unlearning.simulations.command_line.options import (
    ClientCpus,
    ClientGpus,
    RayAddress,
    TensorBoard,
    Verbose,
    argument,
)
from split_unlearning.simulations.command_line.progress import shown_grid
from split_unlearning.simulations.launching import launch
from split_unlearning.simulations.launching.client_pool import check_client_pool
from split_unlearning.simulations.paths import absolute


def benchmark(
    spec: Annotated[str, argument("SPEC")],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR", show_default=False, help="For all that is measured (benchmark)."
        ),
    ] = "benchmark",
    scale: Annotated[
        str,
        typer.Option(
            metavar="full|medium|small",
            show_default=False,
            help="As the spec has it (full), or reduced.",
        ),
    ] = "full",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in DIR; nothing is done twice.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A run-config key of every run."),
    ] = None,
    client_cpus: ClientCpus = 1,
    client_gpus: ClientGpus = 0,
    ray_address: RayAddress = "",
    tensorboard: TensorBoard = False,
    verbose: Verbose = False,
) -> None:
    """Run a grid of strategies, methods, data and seeds; a failing run does not stop the others.

    SPEC is a TOML file, or a name that list shows. Exits with 1 if any run failed.
    """
    with one_line_errors():
        from split_unlearning.reporting.scalars import check_tensorboard
        from split_unlearning.simulations.benchmark.measuring import measure
        from split_unlearning.simulations.benchmark.runner import (
            carry_out,
            failures,
            lay_out,
            unreferenced,
        )
        from split_unlearning.simulations.benchmark.spec import find_spec, read_spec

        folder = Path(absolute(out))
        check_client_pool(1, client_cpus, client_gpus)
        check_writable("out", folder)
        if tensorboard:
            check_tensorboard()
        read = read_spec(find_spec(spec), scale, read_settings(settings or []))
        cells = lay_out(
            read, folder, resume, command=shlex.join(["split-unlearning", *sys.argv[1:]])
        )
        if alone := unreferenced(cells):
            typer.echo(
                f"without a reference: {_counted(alone)}, the first is {alone[0].id}; no run of "
                "this benchmark retrains with the same settings, so there is no distance to it; "
                'add a [[grid]] with these settings and unlearning = "retrain"'
            )
        with shown_grid(len(cells), verbose) as (on_line, on_progress):
            ended = carry_out(
                folder,
                partial(launch.run_app, client_cpus=client_cpus, client_gpus=client_gpus),
                on_line=on_line,
                on_progress=on_progress,
            )
        failed = [*failures(folder), *measure(folder)]
        for text in failed:
            typer.echo(text)
        if ended:
            end(f"error: {ended} (log: {folder / 'log.txt'})", RUN_FAILED)
        if len(failures(folder)) < len(cells):
            typer.echo(_written_report(folder, tensorboard))
        if failed:
            raise typer.Exit(RUN_FAILED)


def report(
    folder: Annotated[str, argument("DIR")],
    tensorboard: TensorBoard = False,
) -> None:
    """Write a benchmark's tables and figures: DIR/report.html, and DIR/tables for papers.

    DIR is a folder that a benchmark has written.
    """
    with one_line_errors():
        typer.echo(_written_report(Path(folder), tensorboard))


def _written_report(folder: Path, tensorboard: bool) -> str:
    """Write the report of a benchmark; return a line that says where it is and what is in it."""
    from split_unlearning.reporting.scalars import check_tensorboard, write_scalars
    from split_unlearning.reporting.writing import write_report

    if tensorboard:
        check_tensorboard()
    benchmark = write_report(folder).benchmark
    if tensorboard:
        write_scalars(benchmark, folder / "tensorboard")
    counts = {
        "failed": len(benchmark.failures),
        "missing": len(benchmark.missing),
        "without a reference": len(benchmark.unreferenced),
    }
    beside = "".join(f", {count} {name}" for name, count in counts.items() if count)
    return f"{_counted(benchmark.cells)}{beside}; the report is {folder / 'report.html'}"


def _counted(cells: Sequence[object]) -> str:
    return "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
