"""``split_unlearning.run``."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from split_unlearning.simulations.command_line.arguments import (
    check_plan,
    check_state_dir,
    check_writable,
)
from split_unlearning.simulations.launching.engines import engine_of
from split_unlearning.simulations.out_folder import OutFolder
from split_unlearning.simulations.python.engines import carry_out
from split_unlearning.simulations.python.handle import Run
from split_unlearning.simulations.python.settings import read_config


def run(
    *,
    clients: int = 5,
    engine: str = "local",
    client_cpus: int = 1,
    client_gpus: float = 0,
    overwrite: bool = False,
    progress: bool = True,
    **settings: object,
) -> Run:
    """Learn, forget, evaluate, and measure what it cost whom, as ``split-unlearning run``.

    Parameters
    ----------
    clients : int
        How many clients there are.
    engine : {"local", "ray"}
        ``local`` runs one client at a time in this process. ``ray`` starts Flower and Ray, as the
        command line does, with several clients at a time. The digests are the same.
    client_cpus, client_gpus : number
        What a client reserves with ``ray``. With ``local`` any `client_gpus` above 0 lets clients
        use this process's GPU.
    overwrite : bool
        Whether a result that is in `out` may be replaced.
    progress : bool
        Whether a terminal or a notebook shows how far the run is.
    **settings
        The keys of the run config, with underscores for dashes; ``split-unlearning list`` explains
        each. Without `out` the run writes to a temporary folder, which goes with the `Run`.
        `keep_models` is true by default, but with `state_dir`.

    Raises
    ------
    UserError
        For what is not possible: one line that names the key, the value and what is allowed.
        Nothing has been written or trained.
    RunFailedError
        If the run failed later on, in one line; `RunFailedError.log` is all that it printed.
    """
    starting = engine_of(engine, clients, client_cpus, client_gpus)
    # A state-dir is to forget what such models show.
    kept = {"keep_models": not settings.get("state_dir")}
    config = replace(read_config(kept | settings, engine), overwrite=overwrite)
    folder = Path(config.out) if config.out else None
    if folder is not None:
        check_writable("out", folder)
    # What is checked below asks for a folder, which is not made before all is checked.
    config = replace(config, out=config.out or tempfile.gettempdir())
    check_plan(config, clients)
    goes_on = check_state_dir(config, clients)
    if folder is not None:
        OutFolder(folder).check_free(config, goes_on)
        OutFolder(folder).begin()
        carry_out(starting, config, clients, progress)
        return Run(folder)
    made = tempfile.mkdtemp(prefix="split-unlearning-")
    try:
        carry_out(starting, replace(config, out=made), clients, progress)
        return Run(made, temporary=True)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
