"""``split-unlearning run``."""

from __future__ import annotations

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
from split_unlearning.simulations.command_line.ending import one_line_errors
from split_unlearning.simulations.command_line.options import (
    ClientCpus,
    ClientGpus,
    Out,
    RayAddress,
    Verbose,
    number,
)
from split_unlearning.simulations.command_line.starting import launched, show_result
from split_unlearning.simulations.launching.client_pool import check_client_pool


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
    out: Out = "results",
    verbose: Verbose = False,
) -> None:
    """Learn, forget, evaluate, and report what it cost whom."""
    with one_line_errors():
        config = read_config(settings or [], strategy, out)
        folder = Path(config.out)
        check_client_pool(clients, client_cpus, client_gpus)
        check_writable("out", folder)
        plan = check_plan(config, clients)
        check_state_dir(config, clients)
        _empty(folder)
        if not verbose:
            typer.echo(plan)
        seconds = launched(config, clients, client_cpus, client_gpus, folder, verbose)
        show_result(folder, seconds, verbose)


def _empty(folder: Path) -> None:
    """Remove what an earlier run left in the folder, lest it is taken for this run's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "log.txt"):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise refuse("out", str(folder), f"a folder that you can write to ({error})") from error
