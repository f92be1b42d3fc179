"""MNIST and Fashion-MNIST: four files in the IDX format, compressed or not."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.loaders.source import Loader, Source, channels_first, fetch

_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def _find(class_name: str, name: str, data_dir: str, download: bool) -> Source:
    """Find the four files, each with or without ``.gz`` behind its name.

    They are looked for where torchvision puts them below data-dir, then in data-dir itself; without
    it, those of ``fashion-mnist`` where the Debian package ``dataset-fashion-mnist`` has them.
    """
    if data_dir:
        folders = [Path(data_dir) / class_name / "raw", Path(data_dir)]
    else:
        folders = [_DEBIAN] if name == "fashion-mnist" else []
    files = _first_whole(folders)
    if files is None and download and data_dir:
        fetch(class_name, data_dir, f"the files of {name}")
        files = _first_whole(folders)
    if files is None:
        raise _missing(name, data_dir, class_name)
    return Source(name, tuple(files.values()), partial(_read, name, class_name, files))


MNIST = Loader(
    "70,000 handwritten digits of 28x28 pixels, from data-dir",
    partial(_find, "MNIST"),
    reads_data_dir=True,
)
FASHION_MNIST = Loader(
    "70,000 pictures of clothing of 28x28 pixels, from data-dir or Debian's dataset-fashion-mnist",
    partial(_find, "FashionMNIST"),
    reads_data_dir=True,
)


def _first_whole(folders: list[Path]) -> dict[str, Path] | None:
    """Return the four files of the first folder that has them all, as they are or compressed."""
    for folder in folders:
        paths = {}
        for key, stem in _FILES.items():
            present = [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]
            if present:
                paths[key] = present[0]
        if len(paths) == len(_FILES):
            return paths
    return None


def _missing(name: str, data_dir: str, class_name: str) -> UserError:
    files = ", ".join(_FILES.values())
    where = f"in its {class_name}/raw or in itself" if data_dir else "in DIR/" + class_name + "/raw"
    return refuse(
        "data-dir",
        data_dir,
        f"for dataset={name!r} a folder with {files} {where}, each with .gz or without; "
        "download=true fetches them into it",
    )


def _read(name: str, class_name: str, files: dict[str, Path]) -> Dataset:
    """Read the four files; they hold no checksum, but for that of gzip, nor names of classes."""
    arrays = {key: _array(name, path, key) for key, path in files.items()}
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        wrong = ""
        if images.shape[1:] != arrays["x_train"].shape[1:]:
            wrong = f"images of another shape than those of {files['x_train'].name}"
        elif len(images) != len(labels):
            wrong = f"{len(images)} images for {len(labels)} labels"
        elif labels.max() > 9:
            wrong = f"the label {labels.max()}, allowed: 0 to 9"
        if wrong:
            raise _damaged(name, files[f"x_{split}"], wrong)
    from torchvision import datasets

    written = getattr(datasets, class_name).classes
    names = tuple(str(label) for label in range(10)) if name == "mnist" else tuple(written)
    return Dataset(
        name,
        channels_first(arrays["x_train"]),
        arrays["y_train"],
        channels_first(arrays["x_test"]),
        arrays["y_test"],
        names,
    )


def _array(name: str, path: Path, key: str) -> np.ndarray:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    read = read_image_file if key.startswith("x") else read_label_file
    try:
        if path.suffix != ".gz":
            return np.asarray(read(str(path)))
        # torchvision reads them by path, and uncompressed.
        with tempfile.NamedTemporaryFile() as plain, gzip.open(path) as packed:
            shutil.copyfileobj(packed, plain)
            plain.flush()
            return np.asarray(read(plain.name))
    except Exception as error:  # the file may hold anything
        raise _damaged(name, path, f"{type(error).__name__}: {error}") from error


def _damaged(name: str, path: Path, reason: str) -> UserError:
    reason = " ".join(reason.split())
    return refuse("dataset", name, f"files in the IDX format of MNIST; {path}: {reason}")
