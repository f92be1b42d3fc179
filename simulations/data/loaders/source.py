"""What every loader returns: which files a data set is read from, and how."""

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
    """Texts and their labels as they were read, split into train and test.

    Parameters
    ----------
    name : str
        As it was asked for.
    text_train, text_test : list of str
        The texts.
    y_train, y_test : ndarray of int64, shape (texts,)
        Their labels.
    class_names : tuple of str
        A name for each label; the index is the label.
    """

    name: str
    text_train: list[str]
    y_train: NDArray[np.int64]
    text_test: list[str]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a data set lies.

    Parameters
    ----------
    name : str
        As it was asked for.
    files : tuple of Path
        All that it is read from; another set of files, or other contents, is another data set.
    read : callable
        Reads them, whole.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], Dataset | Texts]


def not_absolute(name: str, prefix: str) -> UserError:
    """Word the refusal of a relative path, or of none."""
    return refuse(
        "dataset",
        name,
        f"{prefix} and an absolute path; the app runs from its installed bundle, "
        "a relative path means nothing there",
    )


def fetch(class_name: str, data_dir: str, wanted: str) -> None:
    """Let torchvision fetch a data set.

    Parameters
    ----------
    class_name : str
        What torchvision calls it.
    data_dir : str
        Where to.
    wanted : str
        What has to be there if nothing can be fetched.

    Raises
    ------
    UserError
        If that fails.
    """
    from torchvision import datasets

    try:
        getattr(datasets, class_name)(data_dir, download=True)
    except Exception as error:  # a network may fail in any way
        reason = " ".join(str(error).split())
        allowed = f"false, with {wanted} in data-dir ({reason})"
        raise refuse("download", True, allowed) from error


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images of shape (n, height, width[, channels]) with their channels first."""
    if images.ndim == 3:
        return images[:, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
