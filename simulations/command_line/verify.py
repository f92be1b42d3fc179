"""``split-unlearning verify``: whether what is kept is what training anew gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.command_line.ending import DOES_NOT_HOLD, end, one_line_errors
from split_unlearning.simulations.command_line.options import (
    ClientCpus,
    ClientGpus,
    EngineName,
    KeyDir,
    RayAddress,
    Verbose,
    argument,
)
from split_unlearning.simulations.command_line.starting import launched
from split_unlearning.simulations.launching.engines import engine_of
from split_unlearning.simulations.paths import absolute

if TYPE_CHECKING:
    from split_unlearning.simulations.state.state_dir import StateDir


def verify(
    state_dir: Annotated[str, argument("[STATE_DIR]")] = "",
    certificate: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Train nothing; check that this certificate is as it was signed."
        ),
    ] = "",
    client_cpus: ClientCpus = 1,
    client_gpus: ClientGpus = 0,
    ray_address: RayAddress = "",
    engine: EngineName = "ray",
    key_dir: KeyDir = "",
    verbose: Verbose = False,
) -> None:
    """Train again without what was forgotten, compare every segment, and sign what is found.

    STATE_DIR is a folder that a run with state-dir has made. Exits with 0 if all are equal, with 3
    if not, or if a certificate is not as it was signed.
    """
    with one_line_errors():
        from split_unlearning.simulations.errands import to_verify
        from split_unlearning.simulations.state.state_dir import open_state

        if not state_dir and not certificate:
            raise refuse("verify", "", "a STATE_DIR, or --certificate FILE, or both")
        state = open_state(absolute(state_dir), key_dir) if state_dir else None
        if certificate:
            check_certificate(Path(certificate), state)
            return
        assert state is not None
        assert state.config is not None
        made = engine_of(engine, state.num_clients, client_cpus, client_gpus)
        errand = to_verify(state)
        nodes = errand.nodes
        launched(errand.config, nodes, made, state.path, verbose)
        check_certificate(state.certificate, state)


def check_certificate(path: Path, state: StateDir | None) -> None:
    """Print a certificate; end with 3 if it does not hold, or is not as it was signed."""
    from split_unlearning.simulations.session.verification import read_certificate

    try:
        certificate, text = read_certificate(path, state)
    except UserError as error:
        end(f"error: {error}", DOES_NOT_HOLD)
    typer.echo(text)
    if state is not None and certificate["journal"] != state.journal.head:
        typer.echo("the state-dir has changed since: split-unlearning verify makes a new one")
    if not certificate["holds"]:
        raise typer.Exit(DOES_NOT_HOLD)
