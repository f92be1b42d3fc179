"""A smaller data set to measure on."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def cut_down(source: Path, images: int, test_images: int, target: Path) -> None:
    """Write the first images of each label, so many in all of each split, as a data set."""
    with np.load(source) as data:
        kept = {"class_names": data["class_names"]}
        for split, wanted in (("train", images), ("test", test_images)):
            labels = data[f"y_{split}"]
            each = wanted // len(data["class_names"])
            rows = [np.flatnonzero(labels == label)[:each] for label in np.unique(labels)]
            for name in (f"x_{split}", f"y_{split}"):
                kept[name] = data[name][np.concatenate(rows)]
    np.savez(target, **kept)
