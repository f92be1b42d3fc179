"""The ClientApp: each message makes the strategy's client, with its data and what it kept."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from functools import lru_cache, partial

from flwr.app import ConfigRecord, Context
from flwr.client import Client
from flwr.clientapp import ClientApp

from clients.base import ClientSetting, Holding, load_client
from clients.state import ClientState
from simulations.config import RunConfig, Value
from simulations.plan import deal
from strategies.registry import STRATEGIES

_RECORD = "split-unlearning"


class ContextStore(MutableMapping[str, bytes]):
    """A client's state inside Flower's context, which follows the client to any worker.

    Parameters
    ----------
    context : Context
        Of the node the message is for.
    """

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


@lru_cache(maxsize=8)
def _holding(config: RunConfig, num_clients: int, client: int) -> Holding:
    """Return what a client holds."""
    dataset, plan = deal(config, num_clients)
    ids = plan.train[client]
    return Holding(ids, *dataset.train(ids), *dataset.test(plan.test[client]), dataset.class_names)


def client_fn(context: Context) -> Client:
    """Make the client that answers one message."""
    config = _read(tuple(sorted(context.run_config.items())))
    client_class = load_client(STRATEGIES.get(config.strategy).client)
    setting = ClientSetting(
        properties=context.node_config,
        holding=partial(_holding, config, int(str(context.node_config["num-partitions"]))),
        training=config.training(),
        method=config.method(),
        model=config.model,
        upload_chunk_bytes=int(config.upload_chunk_mb * 1e6),
        options=config.plugin_options(),
    )
    return client_class(setting, ClientState(ContextStore(context))).to_client()


app = ClientApp(client_fn)
