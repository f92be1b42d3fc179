"""CIFAR-10 and CIFAR-100, in the form for Python that torchvision reads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from split_unlearning.foundations.errors import refuse
from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.loaders.source import Loader, Source, channels_first, fetch


def _find(
    class_name: str, below: str, names: tuple[str, ...], name: str, data_dir: str, download: bool
) -> Source:
    """Find the files where torchvision puts them, in a folder `below` data-dir.

    They are pickles, which can run anything when they are opened: torchvision opens them only if
    their MD5 is that of the published ones.
    """
    files = tuple(Path(data_dir) / below / one for one in names)
    if data_dir and download and not all(path.is_file() for path in files):
        fetch(class_name, data_dir, below)
    if not data_dir or not all(path.is_file() for path in files):
        raise refuse(
            "data-dir",
            data_dir,
            f"for dataset={name!r} a folder with {below} in it, and there {', '.join(names)}; "
            "download=true fetches them into it",
        )
    return Source(name, files, partial(_read, name, class_name, files[0].parent))


# torchvision knows the names too, but importing it takes seconds, and every process asks for them,
# if only to find the images in the cache.
CIFAR10 = Loader(
    "60,000 colour photographs of 32x32 pixels in 10 classes, from data-dir",
    partial(
        _find,
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    ),
    reads_data_dir=True,
)
CIFAR100 = Loader(
    "60,000 colour photographs of 32x32 pixels in 100 classes, from data-dir",
    partial(_find, "CIFAR100", "cifar-100-python", ("train", "test", "meta")),
    reads_data_dir=True,
)


def _read(name: str, class_name: str, folder: Path) -> Dataset:
    from torchvision import datasets

    kind: Any = getattr(datasets, class_name)
    try:
        train, test = (kind(folder.parent, train=is_train) for is_train in (True, False))
    except Exception as error:  # the files may hold anything
        allowed = f"the published files, whose MD5 torchvision knows, in {folder}"
        raise refuse("dataset", name, allowed) from error
    return Dataset(
        name,
        channels_first(train.data),
        np.asarray(train.targets, dtype=np.int64),
        channels_first(test.data),
        np.asarray(test.targets, dtype=np.int64),
        tuple(train.classes),
    )
