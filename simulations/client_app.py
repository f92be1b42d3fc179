"""The ClientApp: each message makes the strategy's client, with its data and what it kept."""

from __future__ import annotations

import faulthandler
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from functools import lru_cache, partial
from types import FrameType
from typing import NoReturn

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message
from flwr.client import Client
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import Scalar

from split_unlearning.clients.base import SplitClient, load_client
from split_unlearning.clients.holding import Holding
from split_unlearning.clients.setting import ClientSetting
from split_unlearning.foundations.once import once
from split_unlearning.foundations.options import Value
from split_unlearning.models.memory import keep_freed_memory
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.backdoor import Backdoor, named_by, triggered
from split_unlearning.simulations.preparation import deal
from split_unlearning.simulations.session.envelope import open_envelope
from split_unlearning.simulations.state.state_dir import client_folder

_RECORD = "split-unlearning"
_GRACE_SECONDS = 10.0


class ContextStore(MutableMapping[str, bytes]):
    """A client's state inside its node's Flower context, which follows it to any worker."""

    def __init__(self, context: Context) -> None:
        if _RECORD not in context.state.config_records:
            context.state.config_records[_RECORD] = ConfigRecord()
        self._record = context.state.config_records[_RECORD]

    def __getitem__(self, name: str) -> bytes:
        value = self._record[name]
        assert isinstance(value, bytes)
        return value

    def __setitem__(self, name: str, value: bytes) -> None:
        self._record[name] = value

    def __delitem__(self, name: str) -> None:
        del self._record[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)


# A worker serves many messages: what follows from the run config alone is worked out once.
@lru_cache(maxsize=2)
def _read(settings: tuple[tuple[str, Value], ...]) -> RunConfig:
    return RunConfig.from_mapping(dict(settings))


def client_class(config: RunConfig) -> type[SplitClient]:
    """Return the class of a run config's clients."""
    return load_client(config.protocol().client)


# Not more: what a client holds takes four bytes a pixel, and scaling it takes less than a batch.
@once(maxsize=1)
def _holding(config: RunConfig, client: int, num_clients: int) -> Holding:
    """Return what a client holds."""
    dataset, plan = deal(config, num_clients)
    ids, test_ids = plan.train[client], plan.test[client]
    held = dataset.view_of(ids)
    x, y = held.train(ids)
    test_x, test_y = held.test(test_ids)
    holding = Holding(ids, x, y, test_ids, test_x, test_y, dataset.class_names)
    return _planted(holding, config, client) if config.own["backdoor"] else holding


def _planted(holding: Holding, config: RunConfig, client: int) -> Holding:
    """Return what a client holds, with a backdoor in what is to be forgotten of it."""
    names = holding.class_names
    requests = [request.loaded() for request in config.requests()]
    asked = named_by(requests, client, holding.ids, holding.names, names, config.training_seed)
    rows = torch.from_numpy(np.isin(holding.ids, asked))
    label = Backdoor.of(config.own).planted_label(names)
    return replace(
        holding,
        x=torch.where(rows[:, None, None, None], triggered(holding.x), holding.x),
        y=torch.where(rows, label, holding.y),
        named_y=holding.y,
        triggered_x=triggered(holding.test_x),
    )


def _store(config: RunConfig, context: Context, client: int) -> MutableMapping[str, bytes]:
    """Return the store of a client: its folder of state-dir, or one for this run alone."""
    if not config.state_dir:
        return ContextStore(context)
    folder = client_folder(config.state_dir, client, config.key_dir)
    if not config.verify:
        return folder
    # It trains from scratch, and recalls only what to leave out and what to compare.
    store = ContextStore(context)
    if not store:
        folder.check()
    for name, kept in client_class(config).recalled.items():
        if name not in store and kept in folder:
            store[name] = folder[kept]
    return store


def make_client(
    config: RunConfig,
    properties: Mapping[str, Scalar],
    store: Callable[[int], MutableMapping[str, bytes]],
) -> SplitClient:
    """Return the client of a run config, as Flower's `properties` of its node name it.

    `store` returns what a client keeps, by its number.
    """
    setting = ClientSetting.of(
        config.all_options,
        properties=properties,
        holding=partial(_holding, config),
        store=store,
        training=config.training(),
        method=config.method(),
        model=config.cut_model(),
        options=config.all_options,
    )
    return client_class(config)(setting)


def client_fn(context: Context) -> Client:
    """Make the client that answers one message."""
    if threading.current_thread() is threading.main_thread():
        # A process of our own: in a user's, messages are answered in threads.
        keep_freed_memory()
    config = _read(tuple(sorted(context.run_config.items())))
    return make_client(config, context.node_config, partial(_store, config, context)).to_client()


def give_up_when_late(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let no client work on after ``round-timeout``: the server waits for its answer no longer.

    The client is interrupted and answers with an error; a kernel or a lock that hangs ends with its
    process some seconds later. Without this mod a simulation that has failed would not end before
    the last of its clients. It works in a process's main thread alone, where Flower calls it in a
    simulation and in a deployment; elsewhere, in a test, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return call_next(message, context)
    seconds = _read(tuple(sorted(context.run_config.items()))).round_timeout

    def give_up(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"it took longer than {seconds:g} seconds (round-timeout)")

    previous = signal.signal(signal.SIGALRM, give_up)
    try:
        faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return call_next(message, context)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, previous)


app = ClientApp(client_fn, mods=[open_envelope, give_up_when_late])
