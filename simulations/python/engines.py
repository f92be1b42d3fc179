"""Where a run of Python's door takes place, and how its end is told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from split_unlearning.foundations.errors import RunFailedError, UserError, refuse
from split_unlearning.foundations.once import forget_all
from split_unlearning.foundations.options import Value
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.launching.client_pool import check_client_count, check_client_pool
from split_unlearning.simulations.launching.launch import Engine, run_app
from split_unlearning.simulations.local_engine import run_here
from split_unlearning.simulations.python.progress import shown

ENGINES = ("local", "ray")


def check_engine(engine: str) -> None:
    """Refuse a name that is none of `ENGINES`.

    Raises
    ------
    UserError
        With what is allowed.
    """
    if engine not in ENGINES:
        raise refuse("engine", engine, ", ".join(ENGINES))


def engine_of(engine: str, clients: int, client_cpus: int, client_gpus: float) -> Engine:
    """Return an engine by its name; refuse what it cannot give its clients.

    A run begins here: what an earlier one has read may have changed, and is read again.

    Raises
    ------
    UserError
        As `check_engine` and `check_client_pool`; for CPUs that are reserved where nothing is.
    """
    check_engine(engine)
    forget_all()
    if engine == "ray":
        check_client_pool(clients, client_cpus, client_gpus)
        return partial(run_app, client_cpus=client_cpus, client_gpus=client_gpus)
    check_client_count(clients)
    if client_cpus != 1:
        raise refuse("client_cpus", client_cpus, "1 (engine='local' runs one client at a time)")
    return partial(run_here, client_gpus=client_gpus)


def carry_out(
    engine: Engine, settings: RunConfig | Mapping[str, Value], clients: int, progress: bool
) -> None:
    """Do what a run config asks for, and show how far it is if `progress` is true.

    Raises
    ------
    UserError
        What the run refused, where it took place in this process.
    RunFailedError
        If the run failed for another reason, or in another process.
    """
    named = settings.as_mapping() if isinstance(settings, RunConfig) else settings
    with shown(progress) as on_line:
        outcome = engine(named, clients, on_line=on_line)
    if outcome.succeeded:
        return
    if isinstance(outcome.raised, UserError):
        raise outcome.raised
    raise RunFailedError(outcome.error, outcome.log) from outcome.raised
