"""Images of a user's own, as files: a folder a class, below ``train`` and ``test``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.loaders.source import (
    Loader,
    Source,
    channels_first,
    path_of,
)


def _find(name: str) -> Source:
    """Find images in torchvision's ImageFolder layout.

    Pillow reads them, and all are of one size. Colours stay if any image has some. Ids follow the
    order of classes and, in a class, of file names.
    """
    path = path_of(name)
    classes, in_test = (_folders(name, path / split) for split in ("train", "test"))
    if strange := sorted(set(in_test) - set(classes)):
        allowed = f"in test the classes of train ({', '.join(classes)}); there is {strange[0]!r}"
        raise refuse("dataset", name, allowed)
    samples = {split: _samples(name, path / split, classes) for split in ("train", "test")}
    files = tuple(file for split in samples.values() for file, _ in split)
    return Source(name, files, partial(_read, name, samples, tuple(classes)))


IMAGE_FOLDER = Loader(
    "images of your own: files in PATH/train/CLASS and PATH/test/CLASS, of one size", _find
)


def _folders(name: str, folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        allowed = f"a folder with train/CLASS and test/CLASS in it; {folder}: {error.strerror}"
        raise refuse("dataset", name, allowed) from error


def _samples(name: str, folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Return the image files of a split and their labels, as torchvision lists them."""
    # Not torchvision.datasets.ImageFolder: importing it takes seconds, and every process asks for
    # the list, if only to find the images in the cache.
    from PIL import Image

    suffixes = set(Image.registered_extensions())
    samples = [
        (file, label)
        for label, name_of_class in enumerate(classes)
        for file in sorted((folder / name_of_class).rglob("*"))
        if file.suffix.lower() in suffixes and file.is_file()
    ]
    if not samples:
        raise refuse("dataset", name, f"at least one image below {folder}")
    return samples


def _read(
    name: str, samples: dict[str, list[tuple[Path, int]]], classes: tuple[str, ...]
) -> Dataset:
    images: dict[str, list[np.ndarray]] = {}
    first = samples["train"][0][0]
    for split, listed in samples.items():
        images[split] = [_pixels(name, file) for file, _ in listed]
        for (file, _), image in zip(listed, images[split], strict=True):
            wanted = images["train"][0].shape[:2]
            if image.shape[:2] != wanted:
                raise _not_alike(name, file, image.shape[:2], first, wanted)
    coloured = any(image.ndim == 3 for split in images.values() for image in split)
    x = {split: channels_first(_stacked(of_split, coloured)) for split, of_split in images.items()}
    y = {
        split: np.array([label for _, label in listed], dtype=np.int64)
        for split, listed in samples.items()
    }
    return Dataset(name, x["train"], y["train"], x["test"], y["test"], classes)


def _stacked(images: list[np.ndarray], coloured: bool) -> np.ndarray:
    if not coloured:
        return np.stack(images)
    return np.stack(
        [image if image.ndim == 3 else np.repeat(image[..., None], 3, -1) for image in images]
    )


def _pixels(name: str, file: Path) -> np.ndarray:
    """Return an image of uint8, shape (height, width) if it is grey, else (height, width, 3)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except Exception as error:  # a file may hold anything
        raise refuse("dataset", name, f"images that Pillow reads; {file} is none") from error


def _not_alike(
    name: str, file: Path, size: tuple[int, ...], first: Path, wanted: tuple[int, ...]
) -> UserError:
    allowed = f"images of one size; {first} has {wanted} pixels, {file} has {size}"
    return refuse("dataset", name, allowed)
