"""What a model makes of every sample of a run: ``outputs.safetensors``, written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from split_unlearning.foundations.files import write_whole

FILE = "outputs.safetensors"
"""Its name, beside ``result.json``."""

_TASK = "task-{}"


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of Concat(F^k, F^s) after one phase, for samples of every client.

    Every column has the shape (n,), one entry a sample; `probabilities` (n, labels).

    Raises
    ------
    ValueError
        If shapes do not go together, a label has no column, or a number is not finite.
    """

    client: NDArray[np.int64]
    """The client that holds the sample."""
    ids: NDArray[np.int64]
    """Its row in its split: a client, a split and an id name one sample."""
    labels: NDArray[np.int64]
    split: NDArray[np.int64]
    """0 training, 1 test, 2 a test sample that bears the trigger of a backdoor."""
    forgotten_by: NDArray[np.int64]
    """The number of the task that forgot it, by the end of this phase; -1 for none."""
    probabilities: NDArray[np.float32]

    def __post_init__(self) -> None:
        rows = len(self.probabilities)
        if self.probabilities.ndim != 2:
            raise ValueError(f"probabilities have the shape {self.probabilities.shape}")
        for column in ("client", "ids", "labels", "split", "forgotten_by"):
            shape = getattr(self, column).shape
            if shape != (rows,):
                raise ValueError(f"{column} has the shape {shape} for {rows} samples")
        if rows and not 0 <= self.labels.min() <= self.labels.max() < self.probabilities.shape[1]:
            raise ValueError(f"labels are outside 0..{self.probabilities.shape[1] - 1}")
        if not np.isfinite(self.probabilities).all():
            raise ValueError("probabilities hold numbers that are not finite")

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.ids)

    def where(self, rows: NDArray[np.bool_]) -> Outputs:
        """Return some of the samples, by a mask of shape (n,)."""
        return Outputs(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})

    @property
    def is_train(self) -> NDArray[np.bool_]:
        """Which are training samples, shape (n,)."""
        return np.asarray(self.split == 0)

    @property
    def is_triggered(self) -> NDArray[np.bool_]:
        """Which are test samples that bear the trigger of a backdoor, shape (n,)."""
        return np.asarray(self.split == 2)

    @property
    def is_test(self) -> NDArray[np.bool_]:
        """Which are test samples, shape (n,)."""
        return np.asarray(self.split == 1)


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Return the samples of several, in this order.

    Raises
    ------
    ValueError
        If there are none, or they tell different numbers of labels apart.
    """
    return Outputs(
        **{
            one.name: np.concatenate([getattr(part, one.name) for part in parts])
            for one in fields(Outputs)
        }
    )


def write_outputs(path: Path, by_task: Mapping[int, Outputs]) -> None:
    """Write the outputs after each phase, whole or not at all.

    They are given by the task's number in ``result.json``; 0 is learning. The file holds one tensor
    for each field of `Outputs`, called ``task-<number>/<field>``; its folder is made.
    """
    tensors = {
        f"{_TASK.format(task)}/{one.name}": np.ascontiguousarray(getattr(outputs, one.name))
        for task, outputs in by_task.items()
        for one in fields(outputs)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    meanings = {"split": "0 train, 1 test, 2 triggered test", "forgotten_by": "-1 none"}
    write_whole(path, save(tensors, meanings))


def read_outputs(path: Path) -> dict[int, Outputs]:
    """Read what `write_outputs` wrote, by the number of the task, in order.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it does not hold what was written.
    """
    found: dict[int, dict[str, NDArray[np.generic]]] = {}
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} does not hold outputs: {error}") from error
    for name, tensor in tensors.items():
        task, _, column = name.partition("/")
        found.setdefault(int(task.removeprefix(_TASK.format(""))), {})[column] = tensor
    try:
        return {task: Outputs(**found[task]) for task in sorted(found)}  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(f"{path} does not hold outputs: {error}") from error
