"""Images or texts of a user's own, in a ``numpy.savez`` file."""

from __future__ import annotations

import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.loaders.source import (
    Loader,
    Source,
    Texts,
    channels_first,
    path_of,
)

_KEYS = ("x_train", "y_train", "x_test", "y_test", "class_names")
_TEXT_KEYS = ("text_train", "y_train", "text_test", "y_test", "class_names")


def _find(name: str) -> Source:
    """Find a ``numpy.savez`` file.

    It holds ``x_train`` and ``x_test`` of uint8, shape (n, height, width) or (n, height, width,
    channels), ``y_train`` and ``y_test`` of integers, and ``class_names``, strings whose index is
    the label. A file of texts holds ``text_train`` and ``text_test``, strings, in the place of the
    images.
    """
    path = path_of(name)
    return Source(name, (path,), partial(_read, name, path))


NPZ = Loader(
    "images of your own: a numpy.savez file with x_train, y_train, x_test, y_test, class_names; "
    "or texts: text_train and text_test in the place of x_train and x_test",
    _find,
    may_be_text=True,
)


def _read(name: str, path: Path) -> Dataset | Texts:
    """Read a file that a user wrote, and refuse it in the user's words."""
    arrays = _arrays(name, path)
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < len(names):
        raise _not_allowed(name, "class_names", names, "a list of different strings")
    is_text = "text_train" in arrays
    kind = "texts" if is_text else "images"
    keys = ("text_train", "text_test") if is_text else ("x_train", "x_test")
    x_train, x_test = ((_texts if is_text else _images)(name, key, arrays[key]) for key in keys)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise _not_allowed(name, "x_test", arrays["x_test"], "images shaped like those of x_train")
    labels = {}
    for key, images in (("y_train", x_train), ("y_test", x_test)):
        given = arrays[key]
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise _not_allowed(name, key, given, "integers, shape (n,)")
        if len(given) != len(images):
            raise _not_allowed(name, key, given, f"a label for each of {len(images)} {kind}")
        if given.min() < 0 or given.max() >= len(names):
            span = f"labels from {given.min()} to {given.max()}"
            raise refuse(
                "dataset", name, f"{key} from 0 to {len(names) - 1}, the class_names; it has {span}"
            )
        labels[key] = given.astype(np.int64)
    y_train, y_test, class_names = labels["y_train"], labels["y_test"], tuple(names.tolist())
    if is_text:
        return Texts(name, x_train.tolist(), y_train, x_test.tolist(), y_test, class_names)
    return Dataset(name, x_train, y_train, x_test, y_test, class_names)


def _arrays(name: str, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file, unchecked."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = _TEXT_KEYS if {"text_train", "text_test"} & set(archive) else _KEYS
            missing = [key for key in keys if key not in archive]
            if not missing:
                return {key: np.asarray(archive[key]) for key in keys}
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
    raise refuse("dataset", name, f"a file with {', '.join(keys)}; missing: {', '.join(missing)}")


def _images(name: str, key: str, array: np.ndarray) -> NDArray[np.uint8]:
    """Return the images with their channels first."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise _not_allowed(name, key, array, "uint8, shape (n, height, width[, channels])")
    if array.size == 0:
        raise _not_allowed(name, key, array, "at least one image")
    return channels_first(array)


def _texts(name: str, key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise _not_allowed(name, key, array, "strings, shape (n,)")
    if array.size == 0:
        raise _not_allowed(name, key, array, "at least one text")
    return array


def _not_allowed(name: str, key: str, array: np.ndarray, allowed: str) -> UserError:
    return refuse("dataset", name, f"{key}: {allowed}; it is {array.dtype}, shape {array.shape}")
