"""A client's whole model, made again of what a run kept, and the samples that it was dealt."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from split_unlearning.clients.base import SplitClient
from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.models.devices import without_gpus
from split_unlearning.models.split import segment_with
from split_unlearning.reporting.result import Phase, Result
from split_unlearning.simulations.client_app import client_class, make_client
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.out_folder import MODELS
from split_unlearning.simulations.preparation import deal
from split_unlearning.simulations.session.kept_models import KeptModel, Tensors
from split_unlearning.simulations.state.state_dir import StateDir, open_state
from split_unlearning.strategies.server.model import kept_weights
from split_unlearning.unlearning.exactness import digest
from split_unlearning.unlearning.tensor_store import TensorStore


def whole_model(result: Result, folder: Path, client: int, phase: int) -> nn.Module:
    """Return preprocessing, client segment and server segment as one module.

    `folder` is where the run wrote its result and its models; `phase` is the place among the
    result's phases.

    Raises
    ------
    UserError
        As ``Run.model``.
    """
    phases = result.phases
    if type(phase) is not int or not -len(phases) <= phase < len(phases):
        raise refuse("phase", phase, f"from 0 to {len(phases) - 1}, or from the end, as -1")
    config = RunConfig.from_mapping(result.config)
    _check_client(client, result.clients)
    dataset, plan = deal(config, result.clients)
    if config.state_dir:
        # A state that was moved is where its result was read.
        path = folder if (folder / "run.toml").exists() else Path(config.state_dir)
        state = open_state(str(path), config.key_dir)
        kept = _of_state(state, config, result, phases[phase], dataset.num_classes)
    else:
        kept = _of_run(folder, phases[phase])
    if client not in kept.clients:
        raise refuse("client", client, f"one that is there: {', '.join(map(str, kept.clients))}")
    store: dict[str, bytes] = {}
    for name, tensors in kept.clients[client].items():
        TensorStore(store).save(name, tensors)
    server = segment_with(
        config.protocol().server_part,
        config.cut_model(),
        dataset.input_shape,
        kept.labels,
        kept.server,
    )
    properties = {"partition-id": client, "num-partitions": result.clients}
    with without_gpus():
        made = make_client(config, properties, lambda _: store)
        _check_joins(type(made))
        made.become(client, result.clients)
        joined = made.joined(server)
    before = dataset.view_of(plan.train[client]).preprocessing()
    parts = OrderedDict[str, nn.Module](preprocessing=before)
    parts.update(joined.named_children())
    return nn.Sequential(parts).eval()


def _of_run(folder: Path, phase: Phase) -> KeptModel:
    """Return the model that a run kept of a phase."""
    try:
        return KeptModel.read(folder / MODELS, phase.task)
    except OSError as error:
        allowed = "a run with keep_models=True, whose folder is there still"
        raise UserError(f"{folder} holds no models; allowed: {allowed}") from error


def _of_state(
    state: StateDir, config: RunConfig, result: Result, phase: Phase, num_labels: int
) -> KeptModel:
    """Return the model that a state-dir keeps: that of the last phase, and no other."""
    if phase.task != result.phases[-1].task:
        raise refuse("phase", phase.task, "-1 (a state-dir keeps the last model alone)")
    weights, labels = kept_weights(TensorStore(state.server), num_labels)
    if weights is None or digest(weights) != phase.digests.server:
        raise UserError(f"{state.path} has changed since; load reads its result anew")
    clients: dict[int, dict[str, Tensors]] = {}
    for client in (each.client for each in phase.clients):
        held = TensorStore(state.client(client))
        groups = {name: held.load(name) for name in client_class(config).modelled}
        clients[client] = {name: group for name, group in groups.items() if group}
    return KeptModel(weights, labels, clients)


def raw_samples(
    result: Result, client: int, split: Literal["train", "test"]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the samples that a client was dealt, as they were read, and their labels.

    Raises
    ------
    UserError
        As ``Run.samples``.
    """
    if split not in ("train", "test"):
        raise refuse("split", split, "train, test")
    _check_client(client, result.clients)
    dataset, plan = deal(RunConfig.from_mapping(result.config), result.clients)
    ids = plan.train[client] if split == "train" else plan.test[client]
    return dataset.view_of(plan.train[client]).raw(split, ids)


def _check_client(client: int, clients: int) -> None:
    if type(client) is not int or not 0 <= client < clients:
        raise refuse("client", client, f"a client from 0 to {clients - 1}")


def _check_joins(kind: type[SplitClient]) -> None:
    """Refuse a plug-in's client that predicts in a way of its own and does not say how, whole."""
    predicts = next(one for one in kind.__mro__ if "predicted" in vars(one))
    if "joined" not in vars(predicts):
        raise UserError(
            f"{predicts.__name__} defines predicted and not joined; allowed: a client whose model "
            "can be put together"
        )
