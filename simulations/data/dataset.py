"""Images or texts and their labels, before anybody holds any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from split_unlearning.models.inputs import Shape, is_text
from split_unlearning.models.joined import Scaled
from split_unlearning.models.joined import TokenIds as TokenIdsIn

Pixels = NDArray[np.uint8] | NDArray[np.float32]
TokenIds = NDArray[np.int32]
Labels = NDArray[np.int64]
Split = Literal["train", "test"]


class View(ABC):
    """What clients of one task hold samples of: images of one shape, or texts of one length."""

    @property
    @abstractmethod
    def input_shape(self) -> Shape:
        """Channels, height and width of an image; or how many tokens a text has."""

    @abstractmethod
    def raw(self, split: Split, ids: NDArray[np.int64]) -> tuple[Pixels | TokenIds, Labels]:
        """Return samples as they were read, in the order of their ids, and their labels.

        Raises
        ------
        IndexError
            If there is no such sample.
        """

    @abstractmethod
    def preprocessing(self) -> nn.Module:
        """Return what makes raw samples ready for a network."""

    def train(self, ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples of the train split in the order of their ids, and their labels.

        Returns
        -------
        Tensor of float32, shape (n, channels, height, width); or of int64, shape (n, length)
            Images scaled to [-1, 1], or the token ids of texts.
        Tensor of int64, shape (n,)

        Raises
        ------
        IndexError
            If there is no such sample.
        """
        return self._ready("train", ids)

    def test(self, ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples of the test split, as `train` does."""
        return self._ready("test", ids)

    def _ready(self, split: Split, ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.raw(split, ids)
        ready: torch.Tensor = self.preprocessing()(torch.from_numpy(x))
        return ready, torch.from_numpy(y)


class Samples(ABC):
    """All that there is to learn: labels, and images of one shape or of several tasks.

    A sample's id is its row in its split: ids mean the same on every client, in every run.
    """

    name: str
    y_train: NDArray[np.int64]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.class_names)

    @property
    @abstractmethod
    def tasks(self) -> tuple[Dataset, ...]:
        """The data sets whose images these are, in order; each client holds one task's."""

    @property
    @abstractmethod
    def task_of_label(self) -> NDArray[np.int64]:
        """The task of each label, by its place in `tasks`; shape (classes,)."""

    @property
    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """A view for the clients of each task."""

    @property
    def input_shape(self) -> Shape:
        """Channels, height and width of an image, as the server's segment is built for."""
        return self.views[0].input_shape

    def view_of(self, ids: NDArray[np.int64]) -> View:
        """Return the view of the client that holds these training samples.

        Where there are several tasks, there is at least one sample.
        """
        if len(self.views) == 1:
            return self.views[0]
        return self.views[int(self.task_of_label[self.y_train[ids[0]]])]


@dataclass(frozen=True, eq=False)
class Dataset(Samples, View):
    """Images of one shape, or texts of one length, and their labels, split into train and test.

    `x_train` and `x_test` are images as they were read, of uint8 or float32, shape (samples,
    channels, height, width), pixels from 0 to `largest`, whether or not one has it; or token ids
    of int32, shape (samples, length). They may be mapped from a file: only what is asked for is
    read. The index of a name in `class_names` is the label.
    """

    name: str
    x_train: Pixels | TokenIds
    y_train: NDArray[np.int64]
    x_test: Pixels | TokenIds
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    largest: float = 255.0

    @property
    def tasks(self) -> tuple[Dataset, ...]:
        """Itself: a single task."""
        return (self,)

    @property
    def task_of_label(self) -> NDArray[np.int64]:
        """Zeros, shape (classes,): all labels are of its task."""
        return np.zeros(self.num_classes, dtype=np.int64)

    @property
    def views(self) -> tuple[View, ...]:
        """Itself, as the view of every client."""
        return (self,)

    @property
    def input_shape(self) -> Shape:
        """Channels, height and width of an image; or how many tokens a text has."""
        return tuple(self.x_train.shape[1:])

    def raw(self, split: Split, ids: NDArray[np.int64]) -> tuple[Pixels | TokenIds, Labels]:
        """Return samples as they were read, as `View.raw`."""
        if split == "train":
            return self.x_train[ids], self.y_train[ids]
        return self.x_test[ids], self.y_test[ids]

    def preprocessing(self) -> nn.Module:
        """Return what scales images to [-1, 1]; texts have their token ids already."""
        # A mean or a maximum taken from the data would carry a trace of every sample, forgotten
        # ones included; a constant carries none.
        return TokenIdsIn() if is_text(self.input_shape) else Scaled(self.largest)
