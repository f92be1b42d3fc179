"""``split-unlearning models``: where a model can be cut."""

from __future__ import annotations

from typing import Annotated

import typer

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.text import whole_number
from split_unlearning.simulations.command_line.ending import one_line_errors


def models(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="As the key model.")],
    shape: Annotated[
        str, typer.Option(metavar="C,H,W", help="Shape of a sample; a text has one number.")
    ] = "3,32,32",
    labels: Annotated[int, typer.Option(metavar="NUMBER", help="Number of labels.")] = 10,
) -> None:
    """List the layers that a model can be cut behind, and what each cut costs."""
    with one_line_errors():
        numbers = [whole_number(part.strip()) for part in shape.split(",")]
        if not all(numbers) or len(numbers) not in (1, 3):
            raise refuse(
                "--shape", shape, "channels, height and width, as 3,32,32; or tokens, as 64"
            )
        if labels < 1:
            raise refuse("--labels", labels, "an integer >= 1")
        import pandas as pd

        from split_unlearning.models.cuts import cuts

        rows = cuts(name, tuple(number for number in numbers if number), labels)
        if not rows:
            raise refuse("model", name, "a model with parameters on both sides of some layer")
        table = pd.DataFrame(
            {
                "cut": [row.layer for row in rows],
                "smashed data": ["x".join(map(str, row.smashed_shape)) for row in rows],
                "bytes a sample": [f"{row.bytes_a_sample:,}" for row in rows],
                "client parameters": [f"{row.client_parameters:,}" for row in rows],
                "server parameters": [f"{row.server_parameters:,}" for row in rows],
            }
        )
        typer.echo(table.to_string(index=False))
