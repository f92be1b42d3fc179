"""``split-unlearning unlearn``: requests that come weeks later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from split_unlearning.foundations.errors import refuse
from split_unlearning.simulations.command_line.arguments import pair_requests, to_write_to
from split_unlearning.simulations.command_line.ending import one_line_errors
from split_unlearning.simulations.command_line.options import (
    ClientCpus,
    ClientGpus,
    EngineName,
    KeyDir,
    Overwrite,
    RayAddress,
    Verbose,
    argument,
)
from split_unlearning.simulations.command_line.starting import launched, show_result
from split_unlearning.simulations.launching.engines import engine_of
from split_unlearning.simulations.paths import absolute


def unlearn(
    state_dir: Annotated[str, argument("STATE_DIR")],
    forget: Annotated[
        list[str] | None,
        typer.Option(metavar="REQUEST", help="As the run-config key forget; can be repeated."),
    ] = None,
    client: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER",
            help="Who asks: a client, 0,2 for several, or all; once, or once for each --forget.",
        ),
    ] = None,
    drop_client: Annotated[
        bool,
        typer.Option("--drop-client", help="The client is gone: forget all that it ever gave."),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="What was asked before is asked anew, of what is left."),
    ] = False,
    absent: Annotated[
        list[int] | None,
        typer.Option(metavar="NUMBER", help="A client that is away; the others go on without it."),
    ] = None,
    withdraw: Annotated[
        bool,
        typer.Option("--withdraw", help="Take back what was asked and cannot be finished."),
    ] = False,
    client_cpus: ClientCpus = 1,
    client_gpus: ClientGpus = 0,
    ray_address: RayAddress = "",
    engine: EngineName = "ray",
    out: Annotated[
        str, typer.Option(metavar="DIR", help="For result.json, beside the one in STATE_DIR.")
    ] = "",
    overwrite: Overwrite = False,
    key_dir: KeyDir = "",
    verbose: Verbose = False,
) -> None:
    """Forget what is asked weeks later; only the clients that ask are needed (with splitwiper).

    STATE_DIR is a folder that a run with state-dir has made.

    The same command again finishes what was interrupted; without --forget it finishes whatever was.
    """
    with one_line_errors():
        from split_unlearning.simulations.errands import to_forget
        from split_unlearning.simulations.state.reception import AlreadyForgottenError
        from split_unlearning.simulations.state.reception import withdraw as take_back
        from split_unlearning.simulations.state.state_dir import open_state

        path = absolute(state_dir)
        state = open_state(path, key_dir)
        assert state.config is not None
        if withdraw:
            if forget or drop_client or absent:
                allowed = "no --forget, no --drop-client and no --absent beside it"
                raise refuse("--withdraw", True, allowed)
            with state.locked():
                taken = take_back(state.read_again())
            typer.echo(f"withdrawn, and not forgotten: {'; '.join(taken)}")
            return
        made = engine_of(engine, state.num_clients, client_cpus, client_gpus)
        requests = pair_requests(forget or [], client or [], drop_client, state.config.asking)
        config = to_write_to(state.config, absolute(out) if out else "", overwrite)
        try:
            errand = to_forget(state, config, requests, drop_client, again, absent or [])
        except AlreadyForgottenError as done:
            typer.echo(str(done))
            return
        if drop_client:
            clients = ", ".join(str(one) for task in errand.tasks for one in task.counts)
            typer.echo(f"this forgets all that client {clients} ever gave, for good")
        folder = Path(path)
        hint = "; what is asked is written down: the same command finishes it"
        seconds = launched(config, errand.nodes, made, folder, verbose, hint)
        errand.check_done()
        show_result(folder, seconds, verbose)
