"""``split_unlearning.unlearn``, ``withdraw`` and ``verify``: what is done on a state-dir."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from split_unlearning.foundations.errors import RunFailedError, refuse
from split_unlearning.simulations.command_line.arguments import pair_requests, to_write_to
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.errands import to_forget, to_verify
from split_unlearning.simulations.launching.engines import engine_of
from split_unlearning.simulations.paths import absolute
from split_unlearning.simulations.python.engines import carry_out
from split_unlearning.simulations.python.handle import Run
from split_unlearning.simulations.session.verification import read_certificate
from split_unlearning.simulations.state import reception
from split_unlearning.simulations.state.reception import AlreadyForgottenError
from split_unlearning.simulations.state.state_dir import StateDir, open_state
from split_unlearning.unlearning.asking import ASKING, Asking

Folder = str | os.PathLike[str]


def unlearn(
    state_dir: Folder,
    forget: str | Sequence[str] = (),
    client: Asking | Sequence[Asking] = (),
    *,
    drop_client: bool = False,
    again: bool = False,
    absent: Collection[int] = (),
    engine: str = "local",
    client_cpus: int = 1,
    client_gpus: float = 0,
    key_dir: Folder = "",
    out: Folder = "",
    overwrite: bool = False,
    progress: bool = True,
) -> Run:
    """Forget what is asked weeks later, as ``split-unlearning unlearn``.

    The same call again finishes what was interrupted; without `forget` it finishes whatever was.

    Parameters
    ----------
    state_dir : path
        A folder that a run with `state_dir` has made.
    forget : str or sequence of str
        Requests, as the run-config key ``forget``.
    client : int, str or sequence of them
        Who asks: one client for all requests, or one for each. ``"0,2"`` are several clients that
        ask for the same, and ``"all"`` is everybody who holds such samples.
    drop_client : bool
        Whether these clients are gone: all that they ever gave is forgotten, without `forget`.
    again : bool
        Whether a request of the same words as an earlier one is about what is left.
    absent : collection of int
        Clients that are away; the others go on without them.
    engine, client_cpus, client_gpus, progress
        As in `run`.
    key_dir : path
        Where the state's keys lie now; by default where its run config says.
    out : path
        Another folder for ``result.json``.
    overwrite : bool
        Whether a result in `out` that is not of this state may be replaced.

    Returns
    -------
    Run
        With every phase since learning. What was asked and done before is not done again; then a
        warning says when that was.

    Raises
    ------
    UserError, StateError
        For what is not possible, in one line; nothing is written down then.
    RunFailedError
        If the run failed; what is asked is written down, and the same call finishes it.
    """
    state, config = _open(state_dir, key_dir)
    starting = engine_of(engine, state.num_clients, client_cpus, client_gpus)
    requests = pair_requests(_texts(forget), _asking(client), drop_client, config.asking)
    config = to_write_to(config, absolute(os.fspath(out)) if out else "", overwrite)
    try:
        errand = to_forget(state, config, requests, drop_client, again, absent)
    except AlreadyForgottenError as done:
        warnings.warn(str(done), stacklevel=2)
        return Run(state.path)
    try:
        carry_out(starting, errand.config, errand.nodes, progress)
    except RunFailedError as error:
        hint = "what is asked is written down: the same call finishes it"
        raise RunFailedError(f"{error}; {hint}", error.log) from error
    errand.check_done()
    return Run(config.out or state.path)


def withdraw(state_dir: Folder, *, key_dir: Folder = "") -> list[str]:
    """Take back what was asked and cannot be finished; return these requests.

    Raises
    ------
    UserError, StateError
        If nothing is unfinished, or it has gone too far.
    """
    state, _ = _open(state_dir, key_dir)
    with state.locked():
        return reception.withdraw(state.read_again())


@dataclass(frozen=True)
class Certificate:
    """What verification has found, signed.

    Attributes
    ----------
    claims : dict
        All that is signed, with the signature, as in ``certificate.json``.
    text : str
        The same for people, a few lines.
    """

    claims: dict[str, Any]
    text: str

    @property
    def holds(self) -> bool:
        """Whether every segment is, bit for bit, that of training without the forgotten samples."""
        return bool(self.claims["holds"])

    def __str__(self) -> str:
        return self.text


def verify(
    state_dir: Folder,
    *,
    engine: str = "local",
    client_cpus: int = 1,
    client_gpus: float = 0,
    key_dir: Folder = "",
    progress: bool = True,
) -> Certificate:
    """Train again without what a state has forgotten, compare every segment, and sign the outcome.

    As ``split-unlearning verify``; the arguments are those of `unlearn`. The certificate is also
    written to the state-dir.

    Raises
    ------
    UserError, StateError
        If there is no state, or nothing to compare.
    RunFailedError
        If the run failed.
    """
    state, _ = _open(state_dir, key_dir)
    starting = engine_of(engine, state.num_clients, client_cpus, client_gpus)
    errand = to_verify(state)
    carry_out(starting, errand.config, errand.nodes, progress)
    return Certificate(*read_certificate(state.certificate, state))


def _open(state_dir: Folder, key_dir: Folder) -> tuple[StateDir, RunConfig]:
    keys = absolute(os.fspath(key_dir)) if key_dir else ""
    state = open_state(absolute(os.fspath(state_dir)), keys)
    assert state.config is not None
    return state, state.config


def _texts(forget: str | Sequence[str]) -> list[str]:
    named = [forget] if isinstance(forget, str) else forget
    if not isinstance(named, Sequence) or not all(isinstance(text, str) for text in named):
        raise refuse("forget", forget, "a text, as class:2, or a list of texts")
    return list(named)


def _asking(client: Asking | Sequence[Asking]) -> list[Asking]:
    named = [client] if isinstance(client, int | str) else list(client)
    for one in named:
        if type(one) not in (int, str):
            raise refuse("client", one, ASKING)
    return named
