"""What a client works with, and what it hands to the server's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass

import torch
from flwr.common import Scalar

from split_unlearning.clients.holding import Holding
from split_unlearning.foundations.options import Value
from split_unlearning.models.split import Model
from split_unlearning.models.training import TrainingSettings
from split_unlearning.transport.message import Array
from split_unlearning.unlearning.methods import UnlearningMethod


@dataclass(frozen=True)
class Upload:
    """What of one split the server caches.

    Parameters
    ----------
    samples : int
        How many.
    smashed : callable
        Takes where to start and to stop; returns that smashed data, float32, shape (n, ...), on
        the CPU, the same bits whatever the borders.
    known : dict of str to array of int64, shape (samples,)
        What goes along with each sample: of the training split ``labels`` and ``ids``.
    """

    samples: int
    smashed: Callable[[int, int], torch.Tensor]
    known: Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class ClientSetting:
    """What a client works with.

    Parameters
    ----------
    properties : mapping
        Who Flower says this node is: ``partition-id`` and ``num-partitions``.
    holding : callable
        Returns the samples of a client, by its number and the number of all clients.
    store : callable
        Returns what a client, by its number, keeps from one message to the next.
    training : TrainingSettings
        What both sides agree on.
    method : UnlearningMethod
        How to forget.
    model : str or CutModel
        The network, as in ``models.split.build_segment``.
    upload_chunk_bytes : int
        Largest upload in one message.
    options : mapping
        The values of all that strategy, client and method declare as their own.
    audit : bool
        Whether the run may ask for the outputs and labels of all samples.
    keep_models : bool
        Whether the run may ask for the segments.
    """

    properties: Mapping[str, Scalar]
    holding: Callable[[int, int], Holding]
    store: Callable[[int], MutableMapping[str, bytes]]
    training: TrainingSettings
    method: UnlearningMethod
    model: Model
    upload_chunk_bytes: int
    options: Mapping[str, Value]
    audit: bool = False
    keep_models: bool = False
