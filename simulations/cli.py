"""The command line: ``split-unlearning run``, ``benchmark``, ``report``, ``unlearn``..."""

from __future__ import annotations

import signal
import sys

import typer

from split_unlearning.simulations.command_line.benchmark import benchmark, report
from split_unlearning.simulations.command_line.listing import list_names
from split_unlearning.simulations.command_line.run import run
from split_unlearning.simulations.command_line.unlearn import unlearn
from split_unlearning.simulations.command_line.verify import verify

app = typer.Typer(
    help="Run, compare and trust forgetting in split learning, on Flower and Ray.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.command()(run)
app.command()(unlearn)
app.command()(verify)
app.command()(benchmark)
app.command()(report)
app.command("list")(list_names)


def main() -> None:
    """Run the command line; a signal to end cleans up as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    app()
