"""What every loader returns: which files a data set is read from, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import UserError, refuse
from simulations.data.dataset import Dataset


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
    read: Callable[[], Dataset]


def not_absolute(name: str, prefix: str) -> UserError:
    """Word the refusal of a relative path, or of none."""
    return refuse(
        "dataset",
        name,
        f"{prefix} and an absolute path; the app runs from its installed bundle, "
        "a relative path means nothing there",
    )


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images of shape (n, height, width[, channels]) with their channels first."""
    if images.ndim == 3:
        return images[:, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
