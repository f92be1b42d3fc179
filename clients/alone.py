"""Training without the server: a client segment against a local head."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from split_unlearning.clients.base import SplitClient
from split_unlearning.clients.holding import Holding
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.devices import device, moved
from split_unlearning.models.inputs import blank
from split_unlearning.models.pooling import pool_to_quarters
from split_unlearning.models.seeding import seeded
from split_unlearning.models.tokens import MeanOfTokens
from split_unlearning.models.training import train_batch
from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.objectives import targets_of
from split_unlearning.unlearning.slices import epochs_of, slice_of, step_of
from split_unlearning.unlearning.stages import NO_REQUEST, Stage, pretraining


def pretrain(client: SplitClient, segment: nn.Module, slices: int = 1, first: int = 0) -> nn.Module:
    """Train a fresh client segment in place for N epochs against a local head; return the head.

    The paper does not say against what a client trains its first layers; we pool the smashed data
    and add one linear layer. The head has an output for every label of the data set, so that its
    size does not tell which labels were forgotten. It is no part of the network. The client trains
    on its `slices` step by step, and starts with the slice `first`, from the weights of the step
    before in the client's state.
    """
    started = time.perf_counter()
    head = local_head(client, segment)
    network = _joined(segment, head)
    if first:
        network.load_state_dict(client.state.load(_checkpoint(first - 1)) or {})
    for number, epochs in enumerate(epochs_of([1] * slices, client.training.pretrain_epochs)):
        if number >= first:
            ids = client.holding.ids
            known = client.holding.only(ids[slices_of(client, ids, slices) <= number])
            step = step_of(pretraining(epochs), number, slices)
            train_alone(client, segment, head, step, holding=known)
            if number + 1 < slices:
                client.state.save(_checkpoint(number), network.state_dict())
    client.pretraining += time.perf_counter() - started
    return head


def slices_of(client: SplitClient, ids: Ids, slices: int) -> Ids:
    """Return the slice of each of a client's samples, from 0."""
    seed = derive_seed(client.training.seed, "slices", client.client)
    return slice_of(ids, slices, seed)


def _checkpoint(number: int) -> str:
    return f"step-{number + 1}"


def _joined(segment: nn.Module, head: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(segment=segment, head=head))


def local_head(client: SplitClient, segment: nn.Module, owner: str = "") -> nn.Sequential:
    """Return a fresh local head for a segment, by default with the client's own weights."""
    with torch.no_grad():
        smashed = segment(blank(client.input_shape, 1).to(device()))
    pool: nn.Module
    if smashed.ndim == 2:
        pool, features = nn.Identity(), smashed.shape[1]
    elif smashed.ndim == 3:
        pool, features = MeanOfTokens(), smashed.shape[2]
    else:
        channels, height, width = smashed.shape[1:]
        pool, cells = pool_to_quarters(height, width)
        features = channels * cells
    with seeded(derive_seed(client.training.seed, "local-head", owner or client.client)):
        head = nn.Sequential(pool, nn.Flatten(), nn.Linear(features, client.num_labels))
    return head.to(device())


def train_alone(
    client: SplitClient,
    segment: nn.Module,
    head: nn.Module,
    stage: Stage,
    about: int = NO_REQUEST,
    teachers: Mapping[str, nn.Module] | None = None,
    holding: Holding | None = None,
) -> None:
    """Train segment and head in place, as one network, for one stage on the client's own samples.

    `about` is the number of the request whose samples are the forgotten ones. `teachers` has
    networks by the names that the objective uses. `holding` replaces the samples that the stage
    names.
    """
    network = _joined(segment, head)
    optimiser = client.training.optimiser(network)
    for epoch in range(stage.epochs):
        for x, batch in client.visit(stage, epoch, about, holding):
            targets = targets_of(stage.objective, batch, partial(_logits_of, teachers or {}, x))
            placed = {name: moved(target, device()) for name, target in targets.items()}
            train_batch(network, optimiser, x, partial(stage.objective.loss, targets=placed))


def _logits_of(
    teachers: Mapping[str, nn.Module], x: torch.Tensor, name: str, rows: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = teachers[name](x[rows.to(x.device)])
    return logits
