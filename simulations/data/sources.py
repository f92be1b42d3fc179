"""Data sets by name: what there is to learn, before anybody holds any of it."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import UserError, refuse

DATASETS: dict[str, str] = {
    "digits": "1,797 handwritten digits of 8x8 pixels, part of scikit-learn: no download",
    "npz:PATH": "images of your own: a numpy.savez file with x_train, y_train, x_test, y_test, "
    "class_names",
}

_KEYS = ("x_train", "y_train", "x_test", "y_test", "class_names")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels, split into train and test.

    A sample's id is its row in its split: ids mean the same on every client, in every run.

    Parameters
    ----------
    name : str
        As it was asked for.
    x_train, x_test : ndarray of uint8 or float32, shape (samples, channels, height, width)
        The images as they were read, pixels from 0 to `largest`.
    y_train, y_test : ndarray of int64, shape (samples,)
        Their labels.
    class_names : tuple of str
        A name for each label; the index is the label.
    largest : float
        The largest value a pixel can have, whether or not one has it.
    """

    name: str
    x_train: NDArray[np.uint8] | NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8] | NDArray[np.float32]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    largest: float = 255.0

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.x_train.shape
        return channels, height, width

    def train(self, ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples of the train split, ready for a network.

        Parameters
        ----------
        ids : ndarray of int64, shape (n,)
            Which ones, in the order wanted.

        Returns
        -------
        images : Tensor of float32, shape (n, channels, height, width)
            Scaled to [-1, 1].
        labels : Tensor of int64, shape (n,)
            Their labels.

        Raises
        ------
        IndexError
            If there is no such sample.
        """
        return self._tensors(self.x_train[ids], self.y_train[ids])

    def test(self, ids: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples of the test split, as `train` does."""
        return self._tensors(self.x_test[ids], self.y_test[ids])

    def _tensors(
        self, images: NDArray[np.uint8] | NDArray[np.float32], labels: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # A mean or a maximum taken from the data would carry a trace of every sample, forgotten
        # ones included; a constant carries none.
        # The memory format is said because that of a single channel is ambiguous, and kernels that
        # guess another one than the other side of the cut round differently.
        floats = torch.from_numpy(images).to(torch.float32, memory_format=torch.contiguous_format)
        return floats / (self.largest / 2) - 1, torch.from_numpy(labels)


@lru_cache(maxsize=2)
def load(name: str) -> Dataset:
    """Load a data set; a process keeps the last ones it asked for.

    Parameters
    ----------
    name : str
        ``digits``, or ``npz:PATH`` with an absolute path to a ``numpy.savez`` file: ``x_train`` and
        ``x_test`` of uint8, shape (n, height, width) or (n, height, width, channels), ``y_train``
        and ``y_test`` of integers, and ``class_names``, strings whose index is the label.

    Returns
    -------
    Dataset
        Its arrays are read-only, because everybody in the process shares them.

    Raises
    ------
    UserError
        If there is no such data set, or the file is not what it has to be.
    """
    if name == "digits":
        dataset = _digits()
    elif name.startswith("npz:"):
        path = Path(name.removeprefix("npz:"))
        _check_absolute(name, path)
        dataset = _from_npz(name, path)
    else:
        raise refuse("dataset", name, ", ".join(DATASETS))
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        array.flags.writeable = False
    return dataset


def _digits() -> Dataset:
    """Cut scikit-learn's digits, the same way whatever the seed of a run."""
    # Importing scikit-learn takes seconds that only this data set is worth.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return Dataset(
        name="digits",
        x_train=images[~is_test],
        y_train=labels[~is_test],
        x_test=images[is_test],
        y_test=labels[is_test],
        class_names=tuple(str(label) for label in range(10)),
        largest=16.0,
    )


def _check_absolute(name: str, path: Path) -> None:
    if not path.is_absolute():
        raise refuse(
            "dataset",
            name,
            "npz: and an absolute path; the app runs from its installed bundle, "
            "a relative path means nothing there",
        )


def _from_npz(name: str, path: Path) -> Dataset:
    """Read a file that a user wrote, and refuse it in the user's words."""
    arrays = _read_npz(name, path)
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < len(names):
        raise _not_allowed(name, "class_names", names, "a list of different strings")
    x_train, x_test = (_images(name, key, arrays[key]) for key in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise _not_allowed(name, "x_test", arrays["x_test"], "images shaped like those of x_train")
    labels = {}
    for key, images in (("y_train", x_train), ("y_test", x_test)):
        found = arrays[key]
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise _not_allowed(name, key, found, "integers, shape (n,)")
        if len(found) != len(images):
            raise _not_allowed(name, key, found, f"a label for each of {len(images)} images")
        if found.min() < 0 or found.max() >= len(names):
            span = f"labels from {found.min()} to {found.max()}"
            raise refuse(
                "dataset", name, f"{key} from 0 to {len(names) - 1}, the class_names; it has {span}"
            )
        labels[key] = found.astype(np.int64)
    return Dataset(
        name, x_train, labels["y_train"], x_test, labels["y_test"], tuple(names.tolist())
    )


def _read_npz(name: str, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file, unchecked."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive]
            if not missing:
                return {key: np.asarray(archive[key]) for key in _KEYS}
    except OSError as error:
        raise refuse(
            "dataset", name, f"a file that can be read ({error.strerror or 'unreadable'})"
        ) from error
    # What numpy and zipfile raise for a file that is no archive, is cut short, encrypted, or
    # claims impossible sizes. A .npy array is no context manager: TypeError.
    except (
        ValueError,
        TypeError,
        EOFError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise refuse("dataset", name, "a numpy.savez file without pickled objects") from error
    raise refuse("dataset", name, f"a file with {', '.join(_KEYS)}; missing: {', '.join(missing)}")


def _images(name: str, key: str, found: np.ndarray) -> NDArray[np.uint8]:
    """Return the images with their channels first."""
    if found.dtype != np.uint8 or found.ndim not in (3, 4):
        raise _not_allowed(name, key, found, "uint8, shape (n, height, width[, channels])")
    if found.size == 0:
        raise _not_allowed(name, key, found, "at least one image")
    if found.ndim == 3:
        return found[:, None]
    return np.ascontiguousarray(found.transpose(0, 3, 1, 2))


def _not_allowed(name: str, key: str, found: np.ndarray, allowed: str) -> UserError:
    return refuse("dataset", name, f"{key}: {allowed}; it is {found.dtype}, shape {found.shape}")
