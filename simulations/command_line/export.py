"""``split-unlearning export``: a client's model as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from split_unlearning.simulations.command_line.ending import one_line_errors
from split_unlearning.simulations.command_line.options import number
from split_unlearning.simulations.paths import absolute


def export(
    folder: Annotated[str, typer.Argument(metavar="DIR")],
    client: Annotated[int, number("Whose model (0).")] = 0,
    phase: Annotated[int, number("0 for what was learned, -1 for the last (-1).")] = -1,
    out: Annotated[
        str, typer.Option(metavar="DIR", show_default=False, help="A new folder (model).")
    ] = "model",
) -> None:
    """Write a client's whole model: safetensors, a program of torch.export, and a loader.

    DIR is a state-dir, or the folder of a run with keep-models=true.
    """
    with one_line_errors():
        from split_unlearning.simulations import export as exporting
        from split_unlearning.simulations.out_folder import result_in

        source, target = Path(absolute(folder)), Path(absolute(out))
        for name in exporting.export(result_in(source), source, client, phase, target):
            typer.echo(str(target / name))
