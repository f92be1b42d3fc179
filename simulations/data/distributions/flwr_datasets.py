"""Who holds which samples, as the partitioners of flwr-datasets deal them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Option, Options, positive
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.simulations.data.cache import Arrays, Facts, kept, named
from split_unlearning.simulations.data.distributions.plan import Plan, by_shares

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

# Importing flwr-datasets takes seconds, and every client's process asks who holds what: it is
# imported where something is dealt, and what was dealt is kept.

LIBRARY: dict[str, str] = {
    "uniform": "samples are dealt at random, whatever their label (flwr-datasets' IID)",
    "dirichlet": "each label in shares drawn from a Dirichlet distribution (dirichlet-alpha)",
    "pathological": "each client holds so many labels, drawn at random (labels-per-client)",
    "shards": "samples sorted by label, in shards; each client holds so many (shards-per-client)",
}

OWN_OPTIONS: dict[str, Mapping[str, Option]] = {
    "dirichlet": {
        "dirichlet-alpha": positive(
            0.5, "concentration; the smaller, the fewer clients hold a label"
        )
    },
    "pathological": {"labels-per-client": positive(2, "labels of each client")},
    "shards": {"shards-per-client": positive(2, "shards of each client, sorted by label")},
}
"""By distribution, the settings that it reads and the others do not."""

_ATTEMPTS = 20


def library_plan(
    y_train: NDArray[np.int64],
    y_test: NDArray[np.int64],
    *,
    num_classes: int,
    distribution: str,
    num_clients: int,
    options: Options,
    seed: int,
) -> Plan:
    """Deal the samples out as flwr-datasets does, each to exactly one client.

    The partitioner deals the train split; the test split follows, label by label, the shares that
    come of it. Labels that are to be forgotten are dealt as the others are.

    Parameters
    ----------
    y_train, y_test : ndarray of int64, shape (samples,)
        The labels of both splits.
    num_classes : int
        How many labels there are.
    distribution : str
        One of `LIBRARY`.
    num_clients : int
        How many clients hold samples.
    options : Options
        Those of the distribution among them.
    seed : int
        Of every random draw, not negative.

    Raises
    ------
    UserError
        If the partitioner cannot deal like that, leaves a sample on nobody, or a client without a
        train sample.
    """

    def make() -> tuple[Arrays, Facts]:
        train = _dealt(y_train, distribution, num_clients, options, seed)
        counts = np.stack([np.bincount(y_train[ids], minlength=num_classes) for ids in train])
        # A label without a train sample goes to everybody.
        counts[:, counts.sum(axis=0) == 0] = 1
        rng = np.random.default_rng(derive_seed(seed, "test-split", distribution))
        test = by_shares(y_test, counts / counts.sum(axis=0), rng)
        arrays: dict[str, np.ndarray] = {}
        for split, held in (("train", train), ("test", test)):
            arrays[split] = np.concatenate(held)
            arrays[f"{split}_ends"] = np.cumsum([len(ids) for ids in held])
        return arrays, {}

    own = {name: options[name] for name in OWN_OPTIONS.get(distribution, {})}
    parts = (y_train, y_test, num_classes, distribution, num_clients, own, seed)
    arrays, _ = kept(named("plan", *parts, version("flwr-datasets")), make)
    train, test = (
        tuple(np.split(arrays[split], arrays[f"{split}_ends"][:-1])) for split in ("train", "test")
    )
    return Plan(train, test)


def _dealt(
    labels: NDArray[np.int64],
    distribution: str,
    num_clients: int,
    options: Options,
    seed: int,
) -> tuple[NDArray[np.int64], ...]:
    """Deal the train split out; try again where chance leaves a sample on nobody."""
    from datasets import Dataset

    reason = ""
    if distribution == "pathological":
        different = len(np.unique(labels))
        if options.integer("labels-per-client") * num_clients < different:
            reason = f"there are {different} labels to hold"
            raise _impossible(distribution, num_clients, options, reason)
    for attempt in range(_ATTEMPTS):
        drawn = derive_seed(seed, "distribution", distribution, attempt)
        places = np.random.default_rng(drawn).permutation(len(labels))
        # Some partitioners deal rows as they stand: these stand in no order.
        rows = Dataset.from_dict({"id": places, "label": labels[places]})
        partitioner = _partitioner(distribution, len(labels), num_clients, options, drawn)
        partitioner.dataset = rows
        try:
            with warnings.catch_warnings():
                # They warn of what is refused here.
                warnings.simplefilter("ignore")
                held = [
                    np.sort(np.asarray(partitioner.load_partition(client)["id"], dtype=np.int64))
                    for client in range(num_clients)
                ]
        except ValueError as error:
            reason = " ".join(str(error).split())
            continue
        empty = [client for client, ids in enumerate(held) if not len(ids)]
        missing = np.setdiff1d(np.arange(len(labels)), np.concatenate(held))
        if empty:
            reason = f"client {empty[0]} would be left without a sample"
        elif len(missing):
            reason = f"label {labels[missing[0]]} would lie on no client"
        else:
            return tuple(held)
    raise _impossible(distribution, num_clients, options, reason)


def _partitioner(
    distribution: str, samples: int, num_clients: int, options: Options, seed: int
) -> Partitioner:
    from flwr_datasets import partitioner as library

    if distribution == "uniform":
        return library.IidPartitioner(num_clients)
    if distribution == "dirichlet":
        return library.DirichletPartitioner(
            num_clients, "label", options.number("dirichlet-alpha"), min_partition_size=1, seed=seed
        )
    if distribution == "pathological":
        return library.PathologicalPartitioner(
            num_clients,
            "label",
            options.integer("labels-per-client"),
            class_assignment_mode="first-deterministic",
            seed=seed,
        )
    # By their size: told their number alone, it leaves what does not fill a shard on nobody.
    size = -(-samples // (num_clients * options.integer("shards-per-client")))
    return library.ShardPartitioner(
        num_clients, "label", shard_size=size, keep_incomplete_shard=True, seed=seed
    )


def _impossible(distribution: str, num_clients: int, options: Options, reason: str) -> UserError:
    told = f"for {num_clients} clients ({reason})"
    for key in OWN_OPTIONS.get(distribution, ()):
        remedy = "another number" if distribution == "shards" else "a larger one"
        return refuse(key, options[key], f"{remedy}, {told}")
    return refuse("num-supernodes", num_clients, f"fewer, {told}")
