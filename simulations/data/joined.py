"""Several data sets as one, for clients with different tasks.

Labels are counted through all tasks, so that one server segment learns them all. Images keep the
channels of their task, and get a black border up to the height and the width of the largest, so
that all client segments put out what one server segment takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from split_unlearning.models.inputs import Shape
from split_unlearning.models.joined import Bordered
from split_unlearning.simulations.data.dataset import (
    Dataset,
    Labels,
    Pixels,
    Samples,
    Split,
    TokenIds,
    View,
)

_BLACK = -1.0


@dataclass(frozen=True, eq=False)
class JoinedDataset(Samples):
    """At least two data sets as one; ids and labels are counted through all of them.

    A label's name that two of them have becomes ``task1/NAME`` and ``task2/NAME``.
    """

    name: str
    parts: tuple[Dataset, ...]

    @property
    def tasks(self) -> tuple[Dataset, ...]:
        """The data sets, in order; each client holds samples of one."""
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
        uses = Counter(name for task in self.tasks for name in task.class_names)
        return tuple(
            name if uses[name] == 1 else f"task{number}/{name}"
            for number, task in enumerate(self.tasks, start=1)
            for name in task.class_names
        )

    @cached_property
    def task_of_label(self) -> NDArray[np.int64]:
        """The task of each label, by its place in `tasks`; shape (classes,)."""
        sizes = [task.num_classes for task in self.tasks]
        return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)

    @cached_property
    def views(self) -> tuple[View, ...]:
        """A view for the clients of each task."""
        height, width = (max(task.input_shape[side] for task in self.tasks) for side in (1, 2))
        first, first_test, first_label, views = 0, 0, 0, []
        for task in self.tasks:
            views.append(_TaskView(task, first, first_test, first_label, height, width))
            first, first_test = first + len(task.y_train), first_test + len(task.y_test)
            first_label += task.num_classes
        return tuple(views)

    def _joint(self, labels: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        firsts = np.cumsum([0, *(task.num_classes for task in self.tasks)])
        joint = np.concatenate(
            [of_task + first for of_task, first in zip(labels, firsts[:-1], strict=True)]
        )
        joint.flags.writeable = False
        return joint


@dataclass(frozen=True, eq=False)
class _TaskView(View):
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

    def raw(self, split: Split, ids: NDArray[np.int64]) -> tuple[Pixels | TokenIds, Labels]:
        """Return samples as they were read, as `View.raw`; labels are those of all tasks."""
        first = self.first if split == "train" else self.first_test
        x, y = self.task.raw(split, ids - first)
        return x, y + self.first_label

    def preprocessing(self) -> nn.Module:
        """Return what scales images and gives them their border."""
        return nn.Sequential(self.task.preprocessing(), Bordered(self.height, self.width, _BLACK))
