"""The data sets by name; those of a user's own by what stands before the path."""

from __future__ import annotations

from split_unlearning.foundations.registry import Registry
from split_unlearning.simulations.data.loaders.source import Loader

DATASETS: Registry[Loader] = Registry("dataset")

for _name, _path in {
    "digits": "digits:DIGITS",
    "mnist": "idx:MNIST",
    "fashion-mnist": "idx:FASHION_MNIST",
    "cifar10": "cifar:CIFAR10",
    "cifar100": "cifar:CIFAR100",
    "agnews": "agnews:AGNEWS",
    "npz:PATH": "npz:NPZ",
    "folder:PATH": "image_folder:IMAGE_FOLDER",
}.items():
    DATASETS.register(_name, f"{__package__}.{_path}")
