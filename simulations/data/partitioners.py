"""The distributions of the SplitWiper paper as partitioners of flwr-datasets, for any project.

::

    from flwr_datasets import FederatedDataset
    from split_unlearning.simulations.data.partitioners import HeterogeneousLabelsPartitioner

    train = HeterogeneousLabelsPartitioner(num_partitions=5, forgotten_labels=[2])
    test = HeterogeneousLabelsPartitioner(num_partitions=5, forgotten_labels=[2], like=train)
    data = FederatedDataset(dataset="ylecun/mnist", partitioners={"train": train, "test": test})
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import Partitioner
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.simulations.data.distributions.distribution import Dealing, Distribution
from split_unlearning.simulations.data.distributions.labels import (
    HeterogeneousLabels,
    HomogeneousLabels,
    PartialOverlap,
    Stratified,
)
from split_unlearning.simulations.data.distributions.tasks import DifferentTasks


class LabelPartitioner(Partitioner):  # type: ignore[misc]
    """Base of the partitioners below; each sample lies in exactly one partition.

    `partition_by` is the column of the labels. The client `requesting_partition` asks to forget the
    labels in `forgotten_labels`, as they stand in the column, and alone holds them. For another
    split in the same shares, `like` is a partitioner of the same class and parameters that deals
    the train split.

    Raises
    ------
    UserError
        When the first partition is loaded, if a value is impossible, or a client would be left
        without a train sample.
    """

    distribution: ClassVar[type[Distribution]]

    def __init__(
        self,
        num_partitions: int,
        partition_by: str = "label",
        *,
        requesting_partition: int = 0,
        forgotten_labels: Collection[int | str] = (),
        like: LabelPartitioner | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self._num_partitions = num_partitions
        self._partition_by = partition_by
        self._requesting = requesting_partition
        self._forgotten = tuple(forgotten_labels)
        self._like = like
        self._seed = seed
        self._held: tuple[NDArray[np.int64], ...] | None = None

    @property
    def num_partitions(self) -> int:
        """How many clients hold samples."""
        return self._num_partitions

    def load_partition(self, partition_id: int) -> Dataset:
        """Return what one client holds, in the order of the data set."""
        if self._held is None:
            self._held = self._deal()
        return self.dataset.select(self._held[partition_id])

    def _labels(self) -> NDArray[np.generic]:
        return np.asarray(self.dataset[self._partition_by])

    def _deal(self) -> tuple[NDArray[np.int64], ...]:
        mine = self._labels()
        train = mine if self._like is None else self._like._labels()
        column = np.unique(np.concatenate([train, mine]))
        names = column.tolist()
        plan = self.distribution.deal(
            Dealing(
                y_train=np.searchsorted(column, train).astype(np.int64),
                y_test=np.searchsorted(column, mine[: 0 if self._like is None else None]),
                task_of_label=np.array([self._task_of(name) for name in names], dtype=np.int64),
                num_clients=self._num_partitions,
                requesting_client=self._requesting,
                # A label that the column does not hold is refused by a place behind all others.
                forgotten_labels=frozenset(
                    names.index(label) if label in names else len(names)
                    for label in self._forgotten
                ),
                seed=self._seed,
            )
        )
        return plan.train if self._like is None else plan.test

    def _task_of(self, label: int | str) -> int:
        """Return the task of a label in the column."""
        return 0


class HomogeneousLabelsPartitioner(LabelPartitioner):
    """Every client holds every label that is not to be forgotten; volumes differ."""

    distribution = HomogeneousLabels


class PartialOverlapPartitioner(LabelPartitioner):
    """Each label that is not to be forgotten lies on 1 to 3 random clients."""

    distribution = PartialOverlap


class HeterogeneousLabelsPartitioner(LabelPartitioner):
    """Labels are dealt out without overlap."""

    distribution = HeterogeneousLabels


class StratifiedPartitioner(LabelPartitioner):
    """Every label is dealt evenly to every client, those to be forgotten too."""

    distribution = Stratified


class DifferentTasksPartitioner(LabelPartitioner):
    """Each client holds samples of one task; tasks have as even a number of clients as can be.

    `tasks` are the labels of each task, as they stand in the column; the first clients have the
    first task. Joined data sets, ``datasets.concatenate_datasets``, are one such column.

    Raises
    ------
    UserError
        As `LabelPartitioner`; also if there are fewer clients than tasks, a label is of no task or
        of several, or one to be forgotten is not of the requesting client's task.
    """

    distribution = DifferentTasks

    def __init__(
        self, num_partitions: int, *, tasks: Sequence[Collection[int | str]], **more: Any
    ) -> None:
        super().__init__(num_partitions, **more)
        self._tasks = tuple(map(tuple, tasks))

    def _task_of(self, label: int | str) -> int:
        tasks = [number for number, labels in enumerate(self._tasks) if label in labels]
        if len(tasks) != 1:
            raise refuse("tasks", self._tasks, f"each label in one of them, {label!r} too")
        return tasks[0]
