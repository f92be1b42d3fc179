"""``split-unlearning run``."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from split_unlearning.foundations.errors import refuse
from split_unlearning.simulations.command_line.arguments import (
    check_plan,
    check_state_dir,
    check_writable,
    read_config,
)
from split_unlearning.simulations.command_line.default_folder import (
    call_latest,
    made_folder,
    new_folder,
)
from split_unlearning.simulations.command_line.ending import RUN_FAILED, end, one_line_errors
from split_unlearning.simulations.command_line.options import (
    ClientCpus,
    ClientGpus,
    EngineName,
    Overwrite,
    RayAddress,
    Verbose,
    number,
)
from split_unlearning.simulations.command_line.starting import launched, show_result
from split_unlearning.simulations.launching.engines import engine_of
from split_unlearning.simulations.out_folder import OutFolder


def run(
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="How to learn: --set strategy=NAME.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A run-config key; can be repeated."),
    ] = None,
    clients: Annotated[int, number("Number of clients (5).")] = 5,
    client_cpus: ClientCpus = 1,
    client_gpus: ClientGpus = 0,
    ray_address: RayAddress = "",
    engine: EngineName = "ray",
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="For result.json (results/TIME-STRATEGY-DATASET; results/latest leads there).",
        ),
    ] = "",
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Learn, forget, evaluate, and report what it cost whom."""
    with one_line_errors():
        config = read_config(settings or [], strategy, out, overwrite)
        if config.benchmark:
            allowed = "empty; split-unlearning benchmark NAME carries one out"
            raise refuse("benchmark", config.benchmark, allowed)
        named, now = bool(config.out), datetime.now()
        if not named:
            config = replace(config, out=str(new_folder(config, now)))
        folder = OutFolder(Path(config.out))
        made = engine_of(engine, clients, client_cpus, client_gpus)
        check_writable("out", folder.path)
        plan = check_plan(config, clients)
        folder.check_free(config, goes_on=check_state_dir(config, clients))
        if not named:
            config = replace(config, out=str(made_folder(config, now)))
            folder = OutFolder(Path(config.out))
        folder.begin()
        if not verbose:
            typer.echo(plan)
        before = folder.stamp()
        seconds = launched(config, clients, made, folder.path, verbose)
        if folder.stamp() == before:
            end("error: the run wrote no result.json", RUN_FAILED)
        show_result(folder.path, seconds, verbose)
        if not named:
            call_latest(folder.path)
