"""The distributions that partitioners of flwr-datasets deal."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import positive
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.simulations.data.cache import Arrays, kept, named
from split_unlearning.simulations.data.distributions.distribution import Dealing, Distribution
from split_unlearning.simulations.data.distributions.plan import Plan, by_shares

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

# Importing flwr-datasets takes seconds, and every client's process asks who holds which samples: it
# is imported where samples are dealt, and the plan is kept.

_ATTEMPTS = 20


class LibraryDistribution(Distribution):
    """Deals as a partitioner of flwr-datasets does.

    The partitioner deals the train split; the test split follows, label by label, the shares that
    come of it. Labels that are to be forgotten are dealt as the others are.
    """

    remedy: ClassVar[str] = "a larger one"
    """What helps where its setting leaves a client without a sample."""

    @classmethod
    @abstractmethod
    def partitioner(cls, dealing: Dealing, seed: int) -> Partitioner:
        """Return the partitioner, for a data set with the column ``label``."""

    @classmethod
    def deal(cls, dealing: Dealing) -> Plan:
        """Deal the samples out, or return the plan that was made of the same before."""
        own = {name: dealing.options[name] for name in cls.reads()}
        labels = (dealing.y_train, dealing.y_test, dealing.num_classes)
        parts = (*labels, cls.name, dealing.num_clients, own, dealing.seed)
        arrays, _ = kept(
            named("plan", *parts, version("flwr-datasets")), lambda: (_arrays(cls, dealing), {})
        )
        train, test = (
            tuple(np.split(arrays[split], arrays[f"{split}_ends"][:-1]))
            for split in ("train", "test")
        )
        return Plan(train, test)

    @classmethod
    def impossible(cls, dealing: Dealing, reason: str) -> UserError:
        """Word the refusal to deal, with its setting if it has one."""
        clients = f"for {dealing.num_clients} clients ({reason})"
        for key in cls.reads():
            return refuse(key, dealing.options[key], f"{cls.remedy}, {clients}")
        return refuse("num-supernodes", dealing.num_clients, f"fewer, {clients}")


class Uniform(LibraryDistribution):
    """Samples are dealt at random, whatever their label (flwr-datasets' IID)."""

    name = "uniform"

    @classmethod
    def partitioner(cls, dealing: Dealing, seed: int) -> Partitioner:
        """Return one that deals rows as they stand, which is in no order."""
        from flwr_datasets.partitioner import IidPartitioner

        return IidPartitioner(dealing.num_clients)


class Dirichlet(LibraryDistribution):
    """Each label in shares drawn from a Dirichlet distribution (dirichlet-alpha)."""

    name = "dirichlet"
    own_options: ClassVar = {
        "dirichlet-alpha": positive(
            0.5, "concentration; the smaller, the fewer clients hold a label"
        )
    }

    @classmethod
    def partitioner(cls, dealing: Dealing, seed: int) -> Partitioner:
        """Return one that leaves no client without a sample."""
        from flwr_datasets.partitioner import DirichletPartitioner

        alpha = dealing.options.number("dirichlet-alpha")
        return DirichletPartitioner(
            dealing.num_clients, "label", alpha, min_partition_size=1, seed=seed
        )


class Pathological(LibraryDistribution):
    """Each client holds so many labels, drawn at random (labels-per-client)."""

    name = "pathological"
    own_options: ClassVar = {"labels-per-client": positive(2, "labels of each client")}

    @classmethod
    def partitioner(cls, dealing: Dealing, seed: int) -> Partitioner:
        """Return one that gives every label to a client; refuse too few labels for that."""
        from flwr_datasets.partitioner import PathologicalPartitioner

        labels = len(np.unique(dealing.y_train))
        number = dealing.options.integer("labels-per-client")
        if number * dealing.num_clients < labels:
            raise cls.impossible(dealing, f"there are {labels} labels to hold")
        return PathologicalPartitioner(
            dealing.num_clients,
            "label",
            number,
            class_assignment_mode="first-deterministic",
            seed=seed,
        )


class SortedShards(LibraryDistribution):
    """Samples sorted by label, in shards; each client holds so many (shards-per-client)."""

    name = "shards"
    remedy = "another number"
    own_options: ClassVar = {
        "shards-per-client": positive(2, "shards of each client, sorted by label")
    }

    @classmethod
    def partitioner(cls, dealing: Dealing, seed: int) -> Partitioner:
        """Return one by the size of shards: by their number it would leave samples over."""
        from flwr_datasets.partitioner import ShardPartitioner

        shards = dealing.num_clients * dealing.options.integer("shards-per-client")
        size = -(-len(dealing.y_train) // shards)
        return ShardPartitioner(
            dealing.num_clients, "label", shard_size=size, keep_incomplete_shard=True, seed=seed
        )


def _arrays(distribution: type[LibraryDistribution], dealing: Dealing) -> Arrays:
    """Deal both splits out: the ids of all clients in a row, and where each client's end."""
    train = _dealt(distribution, dealing)
    counts = np.stack(
        [np.bincount(dealing.y_train[ids], minlength=dealing.num_classes) for ids in train]
    )
    # A label without a train sample goes to every client.
    counts[:, counts.sum(axis=0) == 0] = 1
    rng = np.random.default_rng(derive_seed(dealing.seed, "test-split", distribution.name))
    test = by_shares(dealing.y_test, counts / counts.sum(axis=0), rng)
    arrays: dict[str, np.ndarray] = {}
    for split, held in (("train", train), ("test", test)):
        arrays[split] = np.concatenate(held)
        arrays[f"{split}_ends"] = np.cumsum([len(ids) for ids in held])
    return arrays


def _dealt(
    distribution: type[LibraryDistribution], dealing: Dealing
) -> tuple[NDArray[np.int64], ...]:
    """Deal the train split out; try again where chance leaves a client or a sample out."""
    from datasets import Dataset

    labels, reason = dealing.y_train, ""
    for attempt in range(_ATTEMPTS):
        drawn = derive_seed(dealing.seed, "distribution", distribution.name, attempt)
        places = np.random.default_rng(drawn).permutation(len(labels))
        partitioner = distribution.partitioner(dealing, drawn)
        # Some partitioners deal rows as they stand: these stand in no order.
        partitioner.dataset = Dataset.from_dict({"id": places, "label": labels[places]})
        try:
            with warnings.catch_warnings():
                # They warn of what is refused here.
                warnings.simplefilter("ignore")
                held = [
                    np.sort(np.asarray(partitioner.load_partition(client)["id"], dtype=np.int64))
                    for client in range(dealing.num_clients)
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
    raise distribution.impossible(dealing, reason)
