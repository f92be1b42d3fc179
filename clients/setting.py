"""What a client works with, and what it hands to the server's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass

import torch
from flwr.common import Scalar

from split_unlearning.clients.holding import Holding
from split_unlearning.foundations.options import Settings, Value, between, flag, setting
from split_unlearning.models.split import Model
from split_unlearning.models.training import TrainingSettings
from split_unlearning.transport.message import Array
from split_unlearning.unlearning.methods import UnlearningMethod


@dataclass(frozen=True)
class Upload:
    """What of one split the server caches.

    There are so many `samples`. `smashed` takes where to start and to stop, and returns that
    smashed data, float32, shape (n, ...), on the CPU, the same bits whatever the borders. What is
    `known` goes along with each sample, int64, shape (samples,): of the training split ``labels``
    and ``ids``.
    """

    samples: int
    smashed: Callable[[int, int], torch.Tensor]
    known: Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class ClientSetting(Settings):
    """What a client works with.

    Flower's `properties` say which node this is: ``partition-id`` and ``num-partitions``. `holding`
    returns the samples of a client, by its number and the number of all clients; `store` what a
    client, by its number, keeps from one message to the next. `options` are the run config with
    the settings of plug-ins.
    """

    properties: Mapping[str, Scalar]
    holding: Callable[[int, int], Holding]
    store: Callable[[int], MutableMapping[str, bytes]]
    training: TrainingSettings
    method: UnlearningMethod
    model: Model
    options: Mapping[str, Value]
    upload_chunk_mb: float = setting(
        between(16.0, "0 < x <= 1000", "largest upload in one message, 10^6 bytes")
    )
    audit: bool = setting(
        flag("clients give the run the labels and the outputs of all their samples, written to out")
    )
    keep_models: bool = setting(
        flag("clients give the run their segments, written to out with the server's after a phase")
    )
