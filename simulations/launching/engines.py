"""The engines that carry a run out: Flower and Ray in processes of their own, or this process."""

from __future__ import annotations

from functools import partial

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.once import forget_all
from split_unlearning.simulations.launching import launch
from split_unlearning.simulations.launching.client_pool import (
    check_client_count,
    check_client_gpus,
    check_client_pool,
)
from split_unlearning.simulations.launching.launch import Engine

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
        return partial(launch.run_app, client_cpus=client_cpus, client_gpus=client_gpus)
    check_client_count(clients)
    check_client_gpus(client_gpus)
    # It imports PyTorch.
    from split_unlearning.simulations.local_engine import run_here

    if client_cpus != 1:
        raise refuse("client_cpus", client_cpus, "1 (engine='local' runs one client at a time)")
    return partial(run_here, client_gpus=client_gpus)
