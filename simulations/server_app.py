"""The ServerApp: learn, then forget what is asked, and say what it cost whom; or verify that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from split_unlearning.reporting.terminal import render
from split_unlearning.simulations import console
from split_unlearning.simulations.benchmark.cells import carry_out_cells
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.plan_table import plan_table
from split_unlearning.simulations.out_folder import OutFolder
from split_unlearning.simulations.preparation import Preparation, prepare
from split_unlearning.simulations.session.conversation import Conversation
from split_unlearning.simulations.session.envelope import Envelope
from split_unlearning.simulations.session.session import Session, needed_for
from split_unlearning.simulations.session.verification import render_certificate, verify
from split_unlearning.simulations.state.agenda import dropped, first_events, tasks_of
from split_unlearning.simulations.state.state_dir import StateDir, open_state
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.placement import place, release
from split_unlearning.strategies.server.segment import ServerSegment
from split_unlearning.strategies.server.setting import Resources, SegmentSetting
from split_unlearning.transport.ledger import Ledger
from split_unlearning.unlearning.journal import Journal

app = ServerApp()

Done = TypeVar("Done")

_SWITCH_SECONDS = 0.0005


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run config asks for.

    Raises
    ------
    UserError
        If it cannot be done: one line, before anything is trained.
    ClientFailureError
        If a client does not answer.
    """
    # In a simulation Flower's own threads are in this process: one looks for messages without a
    # pause, and the threads that hand them to workers would wait for it 5 ms at a time, while the
    # workers stand still. With a thousand clients a run takes a fifth less.
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        answer(RunConfig.from_mapping(context.run_config), grid)
    except Exception as error:
        console.failure(str(error) or type(error).__name__)
        raise


def answer(config: RunConfig, grid: Grid) -> None:
    """Do what a run config asks for, with the nodes of a grid, and show what comes of it.

    Raises
    ------
    UserError
        As `main`.
    ClientFailureError
        As `main`.
    """
    config.check()
    if config.benchmark:
        carry_out_cells(Path(config.benchmark), partial(_carry_out_cell, grid))
    elif config.verify:
        console.show(render_certificate(verify_state(config, grid)))
    else:
        console.show(render(carry_out(config, grid, lambda session: session.run())))


def _carry_out_cell(grid: Grid, config: RunConfig, envelope: Envelope) -> None:
    carry_out(config, grid, lambda session: session.run(), envelope)


def carry_out(
    config: RunConfig,
    grid: Grid,
    do: Callable[[Session], Done],
    envelope: Envelope | None = None,
) -> Done:
    """Open a session for a checked run config, or for what a state-dir's journal has unfinished.

    `do` is called with the session while the server segment lives; what it returns is returned.
    The run's messages have an envelope where the nodes serve several runs.
    """
    ledger = Ledger()
    conversation = Conversation(grid, ledger, config.round_timeout, envelope)
    with _opened(config) as state:
        if config.out:
            out = OutFolder(Path(config.out))
            out.check_free(config, goes_on=state is not None and state.config is not None)
            out.clear()
        if state is not None and state.config is not None:
            state.check_same(config)
            tasks = tasks_of(state.journal)
            conversation.meet(state.num_clients, needed_for(config, state.num_clients, tasks))
            prepared = replace(state.deal(), config=config)
        else:
            prepared = prepare(config, conversation.meet())
        console.show(plan_table(prepared.plan, prepared.dataset))
        # Only when clients have answered does Flower's pool stand: Ray then knows what is left for
        # the server segment.
        with _placed(prepared, state, more=envelope is not None) as server:
            journal = _journal(prepared, state)
            return do(Session(prepared, server, conversation, ledger, journal, state))


def verify_state(config: RunConfig, grid: Grid) -> dict[str, object]:
    """Train again without what a state-dir has forgotten; return the signed certificate."""
    with open_state(config.state_dir, config.key_dir).locked():
        # Read again: until now another process may have had it.
        state = open_state(config.state_dir, config.key_dir)
        state.check_same(config)
        gone = dropped(tasks_of(state.journal))
        ledger = Ledger()
        conversation = Conversation(grid, ledger, config.round_timeout)
        clients = [client for client in range(state.num_clients) if client not in gone]
        conversation.meet(state.num_clients, clients)
        prepared = state.deal()
        with _placed(prepared, None) as server:
            return verify(state, prepared, server, conversation, clients)


@contextmanager
def _opened(config: RunConfig) -> Iterator[StateDir | None]:
    """Return the state-dir that a run config names, and keep other processes away from it."""
    if not config.state_dir:
        yield None
        return
    path = Path(config.state_dir)
    with StateDir(path, config.key_dir).locked():
        # Read again: until now another process may have had it.
        yield StateDir(path, config.key_dir)


@contextmanager
def _placed(
    prepared: Preparation, state: StateDir | None, more: bool = False
) -> Iterator[ServerSegment]:
    """Make the server segment, and end it; with `more` its process waits for the next run."""
    config = prepared.config
    protocol = config.protocol()
    setting = SegmentSetting.of(
        config.own,
        model=config.cut_model(),
        input_shape=prepared.dataset.input_shape,
        num_labels=prepared.dataset.num_classes,
        training=config.training(),
        part=protocol.server_part,
        gradient_noise=protocol.noise_at_cut(config.all_options),
    )
    server = place(Resources.of(config.own), setting, protocol.server_parts)
    try:
        if state is not None:
            # Apart from its start: it reads all that is kept, which may be damaged.
            server.call(KeptState.open, *state.server_files)
        yield server
    finally:
        release(server, more)


def _journal(prepared: Preparation, state: StateDir | None) -> Journal:
    """Return the journal of what is to be done; begin it if this is the first run."""
    if state is not None and state.config is not None:
        return state.journal
    received = first_events(prepared.forgettings, prepared.config.asking)
    if state is not None:
        state.begin(prepared, received)
        return state.journal
    journal = Journal()
    for fields in received:
        journal.append("received", **fields)
    return journal
