"""What a run will do, worked out before anything starts: data, who holds it, who forgets what."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.once import once
from split_unlearning.models.fitting import check_fits
from split_unlearning.models.inputs import Shape, described, is_text
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import build_network, smashed_shape
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.backdoor import Backdoor
from split_unlearning.simulations.data.dataset import Samples
from split_unlearning.simulations.data.distributions.distribution import Dealing
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.data.loading import DataSettings
from split_unlearning.simulations.data.selection import Selection
from split_unlearning.simulations.data.tokenizer import Tokens
from split_unlearning.strategies.server.precision import Precision, check_computes
from split_unlearning.unlearning.asking import named_clients
from split_unlearning.unlearning.exactness import Ids, visits
from split_unlearning.unlearning.request import Request
from split_unlearning.unlearning.stages import learning


@dataclass(frozen=True)
class Forgetting:
    """One request, and the ids of the samples that it means, by client that holds some.

    The label is None for a request about a client or about ids.
    """

    request: Request
    samples: dict[int, Ids]
    label: int | None

    @property
    def clients(self) -> list[int]:
        """The clients whose samples are to be forgotten, in order."""
        return sorted(self.samples)


@dataclass(frozen=True)
class Preparation:
    """Everything that follows from the run config and the number of clients alone.

    `forgettings` are what the run config asks for, none where requests came later.
    """

    config: RunConfig
    dataset: Samples
    plan: Plan
    forgettings: tuple[Forgetting, ...] = ()


def fingerprint(dataset: Samples, plan: Plan) -> str:
    """Return a SHA-256 of what there is to learn from and who holds what of it.

    Exactness is a claim about these: a request that comes later must find them as they were.
    """
    sha = hashlib.sha256()

    def take(array: NDArray[np.generic]) -> None:
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)

    for task in dataset.tasks:
        sha.update(repr((task.class_names, task.largest)).encode())
        take(task.x_train)
        take(task.y_train)
    for ids in plan.train:
        take(ids)
    return sha.hexdigest()


@once(maxsize=2)
def deal(config: RunConfig, num_clients: int) -> tuple[Samples, Plan]:
    """Return the data set and who holds which of its samples; a process keeps the last two.

    Raises
    ------
    UserError
        If the data cannot be read, or cannot be dealt like that.
    """
    dataset = DataSettings.of(config.own).load(Tokens.of(config.own))
    selection = Selection.of(config.own)
    train = selection.seen(dataset.y_train, "train", config.seed)
    test = selection.seen(dataset.y_test, "test", config.seed)
    plan = _dealt(config, dataset, train, test, num_clients)
    # What was dealt are places among the samples that the run sees.
    return dataset, Plan(
        tuple(train[places] for places in plan.train), tuple(test[places] for places in plan.test)
    )


def _dealt(config: RunConfig, dataset: Samples, train: Ids, test: Ids, num_clients: int) -> Plan:
    """Deal the samples of some ids; the plan holds their places among these ids."""
    y_train, y_test = dataset.y_train[train], dataset.y_test[test]
    # Dealing takes time and memory by the client: what cannot be is not worked out.
    if num_clients > len(y_train):
        allowed = f"at most {len(y_train)}, the number of train samples"
        raise refuse("num-supernodes", num_clients, allowed)
    asking = named_clients(config.asking)
    for client in asking:
        if client >= num_clients:
            allowed = f"0 to {num_clients - 1}, for num-supernodes={num_clients}"
            raise refuse("forget-client", config.asking, allowed)
    labels = {request.label_index(dataset.class_names) for request in config.requests()}
    if len(asking) != 1:
        # Nobody holds alone what several are to forget.
        labels = set()
    distribution = DISTRIBUTIONS.get(config.distribution)
    if (len(dataset.tasks) > 1) != distribution.several_tasks:
        one, several = "any other (dataset is one data set)", "different-tasks (dataset is several)"
        allowed = several if len(dataset.tasks) > 1 else one
        raise refuse("distribution", config.distribution, allowed)
    return distribution.deal(
        Dealing(
            y_train=y_train,
            y_test=y_test,
            task_of_label=dataset.task_of_label,
            num_clients=num_clients,
            requesting_client=asking[0] if asking else 0,
            forgotten_labels=frozenset(label for label in labels if label is not None),
            options=config.own,
            seed=config.seed,
        )
    )


# A benchmark checks as many runs as it has, most of which cut the same network alike.
_fits = once(maxsize=32)(check_fits)


def prepare(config: RunConfig, num_clients: int) -> Preparation:
    """Check a run config against the data and the number of clients.

    Raises
    ------
    UserError
        For the impossible: a request that names samples which no client holds, an unknown client,
        or everything there is; data that a model cannot take; a distribution that leaves a client
        empty.
    """
    config.check()
    dataset, plan = deal(config, num_clients)
    strategy, options = config.protocol(), config.all_options
    part = strategy.server_part
    _check_kind(config, dataset)
    network = config.cut_model(), dataset.input_shape, dataset.num_classes
    shapes = {view.input_shape for view in dataset.views}
    for shape in (dataset.input_shape, *sorted(shapes - {dataset.input_shape})):
        _fits(config.cut_model(), shape, dataset.num_classes, part)
    Tokens.of(config.own).check_known(dataset)
    if len(shapes) > 1:
        _check_tasks_meet(config, dataset, shapes)
        images = f"dataset={dataset.name!r} has images of {sorted(shapes)}"
        strategy.check_inputs(options, images)
    check_computes(cast(Precision, config.own["precision"]), part, *network)
    strategy.check_clients(options, num_clients)
    Backdoor.of(config.own).check_fits(dataset)
    held = dict(enumerate(plan.train))
    forgettings = []
    for request in config.requests():
        forgetting = resolve(request.loaded(), held, dataset, config.training_seed)
        for client, ids in forgetting.samples.items():
            held[client] = np.setdiff1d(held[client], ids)
        if sum(map(len, held.values())) < 2:
            raise refuse(
                "forget", config.own["forget"], "a request that leaves something to learn from"
            )
        forgettings.append(forgetting)
    _check_method(config, dataset, plan, forgettings)
    return Preparation(config, dataset, plan, tuple(forgettings))


def _check_kind(config: RunConfig, dataset: Samples) -> None:
    """Refuse what means nothing for images, or for texts."""
    if not any(is_text(task.input_shape) for task in dataset.tasks):
        of = f"dataset={dataset.name!r} has {described(dataset.input_shape)}"
        Tokens.check_unused(config.own, of)
    elif len(dataset.tasks) > 1:
        raise refuse("dataset", dataset.name, "texts alone, or several data sets of images")


def _check_tasks_meet(config: RunConfig, dataset: Samples, shapes: Collection[Shape]) -> None:
    """Refuse tasks whose client segments do not feed one server segment."""
    model, labels = config.cut_model(), dataset.num_classes
    smashed = {smashed_shape(model, shape, labels) for shape in shapes}
    if len(smashed) > 1:
        allowed = f"data sets whose smashed data are of one shape, not of {sorted(smashed)}"
        raise refuse("dataset", dataset.name, allowed)


def _check_method(
    config: RunConfig, dataset: Samples, plan: Plan, forgettings: Sequence[Forgetting]
) -> None:
    """Let the unlearning method refuse the network, or what it is to forget."""
    method, stage = config.method(), learning(config.training().server_epochs)
    seed = config.training_seed
    # Its weights do not matter, but a user's own draws do.
    with seeded(0):
        network = build_network(config.cut_model(), dataset.input_shape, dataset.num_classes)
    method.check_network(network.whole())
    learned = (
        ids[rows]
        for epoch in range(stage.epochs)
        for client, ids in enumerate(plan.train)
        for rows in visits(ids, config.training().batch_size, seed, stage.name, client, epoch)
    )
    meant = [ids for forgetting in forgettings for ids in forgetting.samples.values()]
    method.check_batches(learned, np.concatenate([np.empty(0, dtype=np.int64), *meant]))


def resolve(request: Request, held: Mapping[int, Ids], dataset: Samples, seed: int) -> Forgetting:
    """Work out which samples a request means, of those that each client still holds.

    The request's ids are read from their file. The seed is the run's `training_seed`.

    Raises
    ------
    UserError
        If it names a client or samples that do not exist, or nothing at all.
    """
    named = request.clients if request.client is None else (request.client,)
    if not held.keys() >= set(named):
        allowed = f"a client from 0 to {len(held) - 1} (num-supernodes={len(held)})"
        raise refuse("forget", request.text, allowed)
    selected = {
        client: request.select(client, ids, dataset.y_train[ids], dataset.class_names, seed)
        for client, ids in held.items()
    }
    samples = {client: ids for client, ids in selected.items() if len(ids)}
    missing = set(request.ids) - {int(sample) for ids in samples.values() for sample in ids}
    if missing:
        total, seen = len(dataset.y_train), sum(map(len, held.values()))
        rows = f"0 to {total - 1}, rows of the train split"
        if seen < total:
            rows = f"those of the rows 0 to {total - 1} of the train split that clients hold"
            rows += " (samples and shadow-share keep rows from a run, earlier requests forget some)"
        raise UserError(
            f"forget={request.text!r} names sample {min(missing)}, which no client holds; "
            f"allowed: {rows}"
        )
    lacking = sorted(set(request.clients) - samples.keys())
    if lacking:
        raise UserError(
            f"forget={request.text!r} names nothing that client {lacking[0]} holds, "
            "which forget-client names"
        )
    if not samples and request.client is None:
        raise UserError(f"forget={request.text!r} names nothing that a client holds")
    if not samples:
        assert request.client is not None
        labels = np.unique(dataset.y_train[held[request.client]])
        names = ", ".join(dataset.class_names[label] for label in labels) or "nothing any more"
        raise UserError(
            f"forget={request.text!r} names nothing that client {request.client} holds; "
            f"it holds: {names}"
        )
    return Forgetting(request, samples, request.label_index(dataset.class_names))
