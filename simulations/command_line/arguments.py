"""What the command line was told: read, with paths from the current folder, and checked.

Everything here comes before anything starts, and creates nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Value
from split_unlearning.simulations.out_folder import OutFolder
from split_unlearning.simulations.paths import absolute, forget_from_here, from_here
from split_unlearning.unlearning.asking import ASKING, Asking, asking

if TYPE_CHECKING:
    from split_unlearning.simulations.config import RunConfig

# What needs torch is imported where it is needed.


def read_config(
    settings: list[str], strategy: str | None, out: str, overwrite: bool = False
) -> RunConfig:
    """Read the run config; paths in it are meant from the current folder.

    Parameters
    ----------
    settings : list of str
        Each ``key=value``.
    strategy : str or None
        As the key of that name, which it goes before.
    out : str
        As the key of that name, which goes before it; empty where no folder is named.
    overwrite : bool
        Whether the key of that name is true, whatever it says itself.

    Raises
    ------
    UserError
        As `RunConfig.from_mapping`; for a key `out` that is empty.
    """
    from split_unlearning.simulations.config import RunConfig

    named: dict[str, Value] = {"out": absolute(out)} if out else {}
    chosen = named | read_settings(settings)
    if strategy is not None:
        chosen["strategy"] = strategy
    if overwrite:
        chosen["overwrite"] = True
    if chosen.get("out") == "":
        raise refuse("out", "", "a folder")
    return RunConfig.from_mapping(chosen)


def read_settings(settings: list[str]) -> dict[str, Value]:
    """Read run-config keys, each ``key=value``; paths in them are meant from the current folder."""
    from split_unlearning.simulations.config import parse_setting

    return from_here(dict(parse_setting(text) for text in settings))


def join_ray(address: str) -> str:
    """Have all that is started from here join a Ray cluster; with an empty address, none new.

    Everything else that starts Ray programs goes by ``RAY_ADDRESS``, and so do we.
    """
    if address:
        os.environ["RAY_ADDRESS"] = address
    return address


def check_writable(key: str, folder: Path) -> None:
    """Refuse a folder that cannot be created or written to; create nothing yet."""
    try:
        str(folder).encode()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    except UnicodeEncodeError as error:
        named = str(folder).encode(errors="replace").decode()
        raise refuse(key, named, "a path in UTF-8") from error
    except OSError:
        writable = False
    if not writable:
        raise refuse(key, str(folder), "a folder that you can write to")


def check_state_dir(config: RunConfig, clients: int) -> bool:
    """Return whether the run goes on with what a state-dir holds.

    A state-dir that cannot be made, or that holds something else, is refused; nothing is created.
    """
    if not config.state_dir:
        return False
    from split_unlearning.simulations.state.agenda import tasks_of
    from split_unlearning.simulations.state.state_dir import StateDir

    state = StateDir(Path(config.state_dir), config.key_dir)
    if config.verify:
        raise refuse("verify", True, "false; split-unlearning verify STATE_DIR does it")
    if state.config is None:
        check_writable("state-dir", state.path)
        if config.key_dir:
            check_writable("key-dir", Path(config.key_dir))
        return False
    state.check_same(config)
    if clients != state.num_clients:
        raise refuse("--clients", clients, f"{state.num_clients}, as {state.path} was made with")
    if all(task.measured for task in tasks_of(state.journal)):
        allowed = f"a new folder; split-unlearning unlearn {state.path} forgets what it learned"
        raise refuse("state-dir", str(state.path), allowed)
    return True


def to_write_to(config: RunConfig, out: str, overwrite: bool) -> RunConfig:
    """Return a state's run config for a run that also writes to `out`, if that is not empty.

    Raises
    ------
    UserError
        If it cannot write there, or must not replace what is there.
    """
    changed = replace(config, out=out, overwrite=overwrite, verify=False)
    if out:
        changed.check()
        check_writable("out", Path(out))
        OutFolder(Path(out)).check_free(changed, goes_on=True)
    return changed


def check_plan(config: RunConfig, clients: int) -> str:
    """Refuse what the data or the number of clients make impossible; return who holds what."""
    from split_unlearning.simulations.data.plan_table import plan_table
    from split_unlearning.simulations.preparation import prepare

    prepared = prepare(config, clients)
    return plan_table(prepared.plan, prepared.dataset)


def pair_requests(
    forget: list[str], clients: Sequence[Asking], drop: bool, default: Asking
) -> list[tuple[str, Asking]]:
    """Pair requests with who asks.

    Parameters
    ----------
    forget : list of str
        The requests.
    clients : sequence of Asking
        Who asks: one for all, one for each request, or none for the default.
    drop : bool
        Whether the clients are to be dropped; then there are no other requests.
    default : Asking
        Who asks if nobody is named.

    Raises
    ------
    UserError
        If they do not pair.
    """
    who = [_asking(one) for one in clients]
    if drop:
        if forget or not who or not all(isinstance(one, int) for one in who):
            raise refuse(
                "--drop-client",
                "; ".join(forget) or "no --client",
                "--client NUMBER, and no --forget: everything of that client is forgotten",
            )
        return [(f"client:{one}", one) for one in who]
    if len(clients) not in (0, 1, len(forget)):
        allowed = f"once, or {len(forget)} times, as often as --forget"
        raise refuse("--client", " ".join(map(str, clients)), allowed)
    pairs = who or [default]
    return [
        (forget_from_here(text), pairs[number % len(pairs)]) for number, text in enumerate(forget)
    ]


def _asking(client: Asking) -> Asking:
    try:
        return asking(client)
    except UserError as error:
        raise refuse("--client", client, ASKING) from error
