"""The command line: ``split-unlearning run``, ``benchmark``, ``report``, ``unlearn``..."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from split_unlearning.simulations.command_line.benchmark import benchmark, report
from split_unlearning.simulations.command_line.export import export
from split_unlearning.simulations.command_line.listing import list_names
from split_unlearning.simulations.command_line.models import models
from split_unlearning.simulations.command_line.run import run
from split_unlearning.simulations.command_line.unlearn import unlearn
from split_unlearning.simulations.command_line.verify import verify
from split_unlearning.simulations.project import project

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Click suggests a command itself.
    suggest_commands=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        described = project()["project"]
        typer.echo(f"{described['name']} {described['version']}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Run, compare and trust forgetting in split learning, on Flower and Ray."""


app.command()(run)
app.command()(unlearn)
app.command()(verify)
app.command()(benchmark)
app.command()(report)
app.command()(models)
app.command()(export)
app.command("list")(list_names)


def main() -> None:
    """Run the command line; a signal to end cleans up as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    app()
