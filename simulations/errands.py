"""Runs on a state-dir: what is to be done there, and how many nodes are needed for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.session.session import needed_for
from split_unlearning.simulations.state.agenda import Task, dropped, tasks_of
from split_unlearning.simulations.state.reception import check_done, receive
from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.unlearning.asking import Asking


@dataclass(frozen=True)
class Errand:
    """A run on a state-dir: what `config` says, with so many `nodes`, until `tasks` are done."""

    state: StateDir
    config: RunConfig
    nodes: int
    tasks: tuple[Task, ...] = ()

    def check_done(self) -> None:
        """Refuse to call the tasks done that the journal does not call done; after the run.

        Raises
        ------
        StateError
            As `reception.check_done`.
        """
        check_done(self.state.read_again(), self.tasks)


def to_forget(
    state: StateDir,
    config: RunConfig,
    forget: Sequence[tuple[str, Asking]],
    drop: bool,
    again: bool,
    absent: Collection[int],
) -> Errand:
    """Write requests down in the state's journal, as `reception.receive`; return what to run.

    `config` is the state's, and says where else to write the result.

    Raises
    ------
    UserError, AlreadyForgottenError
        As `reception.receive`.
    """
    with state.locked():
        state = state.read_again()
        tasks = receive(state, forget, drop, again, absent)
    needed = needed_for(config, state.num_clients, tasks)
    return Errand(state, config, max(1, len(needed)), tuple(tasks))


def to_verify(state: StateDir) -> Errand:
    """Return what to run to train again without what a state has forgotten, and compare."""
    assert state.config is not None
    config = replace(state.config, out="", verify=True)
    return Errand(state, config, state.num_clients - len(dropped(tasks_of(state.journal))))
