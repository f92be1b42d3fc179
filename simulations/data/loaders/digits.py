"""scikit-learn's digits, which come with it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.loaders.source import Loader, Source


def _find(name: str) -> Source:
    # Importing scikit-learn takes a second; that it is there can be known without.
    spec = find_spec("sklearn")
    package = Path(spec.origin).parent if spec and spec.origin else Path()
    return Source(name, (package / "datasets" / "data" / "digits.csv.gz",), _read)


DIGITS = Loader("1,797 handwritten digits of 8x8 pixels, part of scikit-learn: no download", _find)


def _read() -> Dataset:
    """Cut scikit-learn's digits, the same way whatever the seed: every fifth of a class is test."""
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
