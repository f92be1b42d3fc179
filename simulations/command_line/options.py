"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from split_unlearning.simulations.command_line.arguments import join_ray
from split_unlearning.simulations.paths import absolute


def number(meaning: str) -> Any:
    """Return the option of a number, told by what it means."""
    return typer.Option(metavar="NUMBER", show_default=False, help=meaning)


def argument(name: str) -> Any:
    """Return an argument; the docstring of its command says what it is.

    Click 8.5 drops the help that Typer gives an argument.
    """
    return typer.Argument(metavar=name, show_default=False, hidden=True)


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a result that is in the folder of --out.")
]
ClientCpus = Annotated[int, number("CPUs that a client reserves (1).")]
ClientGpus = Annotated[float, number("GPUs that a client reserves (0).")]
RayAddress = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        show_default=False,
        callback=join_ray,
        help="Join this Ray cluster, as RAY_ADDRESS does.",
    ),
]
KeyDir = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        show_default=False,
        callback=lambda folder: absolute(folder) if folder else "",
        help="Where the state-dir's keys lie now (where key-dir said).",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ray|local",
        show_default=False,
        help="Ray and Flower in processes of their own (ray), or this process, client by client.",
    ),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write DIR/tensorboard too, for TensorBoard.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print all that Flower says.")]
