"""What every loader declares and returns: which files a data set is read from, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.dataset import Dataset


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts and their labels as they were read; a label's name stands at its number."""

    name: str
    text_train: list[str]
    y_train: NDArray[np.int64]
    text_test: list[str]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The files of a data set, and what reads them whole.

    Another set of files, or other contents, is another data set.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], Dataset | Texts]


@dataclass(frozen=True)
class Loader:
    """How a data set is found.

    `find` takes the data set's name, and the run-config keys ``data-dir`` and ``download`` where
    the loader `reads_data_dir`. It raises a `UserError` if there are no such files; so does what
    it returns, when the files are read and are not what they have to be.
    """

    description: str
    find: Callable[..., Source]
    reads_data_dir: bool = False
    may_be_text: bool = False

    def source(self, name: str, data_dir: str, download: bool) -> Source:
        """Find a data set; refuse ``data-dir`` and ``download`` where they mean nothing."""
        if self.reads_data_dir:
            return self.find(name, data_dir, download)
        for key, value, nothing in (("data-dir", data_dir, ""), ("download", download, False)):
            if value != nothing:
                raise refuse(key, value, f"{nothing!r} (dataset={name!r} ignores it)")
        return self.find(name)


def path_of(name: str) -> Path:
    """Return the path in a name such as ``npz:PATH``.

    Raises
    ------
    UserError
        If it is relative, or missing.
    """
    kind, _, path = name.partition(":")
    if not Path(path).is_absolute():
        raise refuse(
            "dataset",
            name,
            f"{kind}: and an absolute path; the app runs from its installed bundle, "
            "a relative path means nothing there",
        )
    return Path(path)


def fetch_failed(wanted: str, error: Exception) -> UserError:
    """Word the refusal of a download that failed; `wanted` has to be there without it."""
    reason = " ".join(str(error).split())[:200]
    return refuse("download", True, f"false, with {wanted} in data-dir ({reason})")


def fetch(class_name: str, data_dir: str, wanted: str) -> None:
    """Let torchvision fetch the data set of one of its classes.

    Raises
    ------
    UserError
        If that fails; `wanted` has to be there then.
    """
    from torchvision import datasets

    try:
        getattr(datasets, class_name)(data_dir, download=True)
    except Exception as error:  # a network may fail in any way
        raise fetch_failed(wanted, error) from error


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images of shape (n, height, width[, channels]) with their channels first."""
    if images.ndim == 3:
        return images[:, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
