"""Clients with different tasks: several data sets as one, and who holds which.

Each client holds samples of one task; labels are counted through all tasks, so that one server
segment learns them all. Images keep the channels of their task, and get a black border up to the
height and the width of the largest, so that all client segments put out what one server segment
takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.inputs import Shape
from split_unlearning.simulations.data.dataset import Dataset, Holdable, Samples
from split_unlearning.simulations.data.partition import Plan, make_plan

DIFFERENT_TASKS = {"different-tasks": "each client holds one of the data sets of dataset=A+B"}

_BLACK = -1.0


@dataclass(frozen=True, eq=False)
class JoinedDataset(Samples):
    """Several data sets as one; ids and labels are counted through all of them.

    Parameters
    ----------
    name : str
        As it was asked for.
    parts : tuple of Dataset
        The tasks, at least two, in order. A label's name that two of them have becomes
        ``task1/NAME`` and ``task2/NAME``.
    """

    name: str
    parts: tuple[Dataset, ...]

    @property
    def tasks(self) -> tuple[Dataset, ...]:
        """The data sets whose images these are, in order; each client holds one task's."""
        return self.parts

    @cached_property
    def y_train(self) -> NDArray[np.int64]:  # type: ignore[override]
        """Labels of the train split, shape (samples,)."""
        return self._joint([task.y_train for task in self.tasks])

    @cached_property
    def y_test(self) -> NDArray[np.int64]:  # type: ignore[override]
        """Labels of the test split, shape (samples,)."""
        return self._joint([task.y_test for task in self.tasks])

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """A name for each label; the index is the label."""
        found = Counter(name for task in self.tasks for name in task.class_names)
        return tuple(
            name if found[name] == 1 else f"task{number}/{name}"
            for number, task in enumerate(self.tasks, start=1)
            for name in task.class_names
        )

    @cached_property
    def task_of_label(self) -> NDArray[np.int64]:
        """The task of each label, by its place in `tasks`; shape (classes,)."""
        sizes = [task.num_classes for task in self.tasks]
        return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)

    @cached_property
    def views(self) -> tuple[Holdable, ...]:
        """What clients of each task hold samples of."""
        height, width = (max(task.input_shape[side] for task in self.tasks) for side in (1, 2))
        first, first_test, first_label, views = 0, 0, 0, []
        for task in self.tasks:
            views.append(_View(task, first, first_test, first_label, height, width))
            first, first_test = first + len(task.y_train), first_test + len(task.y_test)
            first_label += task.num_classes
        return tuple(views)

    def _joint(self, labels: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        firsts = np.cumsum([0, *(task.num_classes for task in self.tasks)])
        joint = np.concatenate(
            [one + first for one, first in zip(labels, firsts[:-1], strict=True)]
        )
        joint.flags.writeable = False
        return joint


@dataclass(frozen=True, eq=False)
class _View(Holdable):
    """One task of several: ids and labels are counted from where its first ones are."""

    task: Dataset
    first: int
    first_test: int
    first_label: int
    height: int
    width: int

    @property
    def input_shape(self) -> Shape:
        """The task's channels, and the height and the width of the largest."""
        return self.task.input_shape[0], self.height, self.width

    def train(self, ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples of the train split, as `Holdable.train`."""
        return self._bordered(*self.task.train(ids - self.first))

    def test(self, ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples of the test split, as `train` does."""
        return self._bordered(*self.task.test(ids - self.first_test))

    def _bordered(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        above, left = (self.height - x.shape[2]) // 2, (self.width - x.shape[3]) // 2
        below, right = self.height - x.shape[2] - above, self.width - x.shape[3] - left
        if above or below or left or right:
            x = nn.functional.pad(x, (left, right, above, below), value=_BLACK)
        return x, y + self.first_label


def tasks_of_clients(num_clients: int, num_tasks: int) -> NDArray[np.int64]:
    """Say which task each client has: as even as possible, in order, earlier tasks first.

    Five clients and two tasks are three clients of the first task and two of the second, as in the
    SplitWiper paper's ``different tasks``.

    Parameters
    ----------
    num_clients : int
        How many clients hold samples.
    num_tasks : int
        How many tasks there are, at least one.

    Returns
    -------
    ndarray of int64, shape (num_clients,)
        The task of each client, never decreasing; each task has a client.

    Raises
    ------
    UserError
        If there are fewer clients than tasks.
    """
    if num_clients < num_tasks:
        raise refuse("num-supernodes", num_clients, f"at least {num_tasks}, one for each task")
    even, more = divmod(num_clients, num_tasks)
    sizes = even + (np.arange(num_tasks) < more)
    return np.repeat(np.arange(num_tasks, dtype=np.int64), sizes)


def plan_of_tasks(
    y_train: NDArray[np.int64],
    y_test: NDArray[np.int64],
    *,
    task_of_label: NDArray[np.int64],
    num_clients: int,
    requesting_client: int,
    forgotten_labels: frozenset[int],
    seed: int,
) -> Plan:
    """Deal each task's samples to the clients that have it, as ``homogeneous-labels`` does.

    Parameters
    ----------
    task_of_label : ndarray of int64, shape (classes,)
        The task of each label of the joint label space; tasks count from 0.
    y_train, y_test, num_clients, requesting_client, forgotten_labels, seed
        As in `simulations.data.partition.make_plan`.

    Raises
    ------
    UserError
        If there are fewer clients than tasks, a label to forget is not of the requesting client's
        task, or a client would be left without a train sample.
    """
    if not 0 <= requesting_client < num_clients:
        raise refuse("forget-client", requesting_client, f"0 to {num_clients - 1}")
    tasks = tasks_of_clients(num_clients, int(task_of_label.max()) + 1)
    asked = tasks[requesting_client]
    own = np.flatnonzero(task_of_label == asked)
    for label in sorted(forgotten_labels):
        if label not in own:
            allowed = f"a label of the task of forget-client={requesting_client}: {own.tolist()}"
            raise refuse("forget", f"class:{label}", allowed)

    train: list[NDArray[np.int64]] = []
    test: list[NDArray[np.int64]] = []
    for task in range(tasks[-1] + 1):
        of_task = task_of_label == task
        rows, test_rows = np.flatnonzero(of_task[y_train]), np.flatnonzero(of_task[y_test])
        plan = make_plan(
            y_train[rows],
            y_test[test_rows],
            num_classes=len(task_of_label),
            distribution="homogeneous-labels",
            num_clients=int((tasks == task).sum()),
            requesting_client=requesting_client - len(train) if task == asked else 0,
            forgotten_labels=forgotten_labels if task == asked else frozenset(),
            seed=derive_seed(seed, "task", task),
        )
        train += [rows[places] for places in plan.train]
        test += [test_rows[places] for places in plan.test]
    return Plan(tuple(train), tuple(test))
