"""AG News, news items of four topics: as csv files, or as parquet files as the hub has them."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.loaders.source import (
    Loader,
    Source,
    Texts,
    fetch_failed,
)

_NAMES = ("World", "Sports", "Business", "Sci/Tech")
_HUB = "fancyzhx/ag_news"
_SPLITS = ("train", "test")


def _find(name: str, data_dir: str, download: bool) -> Source:
    """Find 120,000 and 7,600 items (Zhang, Zhao and LeCun 2015) in a folder.

    It holds ``train.csv`` and ``test.csv`` as they were published (class from 1 to 4, title,
    description), or ``train*.parquet`` and ``test*.parquet`` as the hub has them (text, label).
    """
    paths = _files(data_dir)
    if data_dir and download and not paths:
        _fetch(Path(data_dir))
        paths = _files(data_dir)
    if not paths:
        allowed = (
            "for dataset='agnews' a folder with train.csv and test.csv (class, title, description) "
            "or train*.parquet and test*.parquet (text, label); download=true fetches them into it"
        )
        raise refuse("data-dir", data_dir, allowed)
    files = tuple(path for split in _SPLITS for path in paths[split])
    return Source(name, files, partial(_read, paths))


AGNEWS = Loader(
    "127,600 news items in 4 topics, as text for model=bert, from data-dir",
    _find,
    reads_data_dir=True,
    may_be_text=True,
)


def _files(data_dir: str) -> dict[str, list[Path]]:
    """Return the files of both splits; nothing if one has none."""
    folder = Path(data_dir)
    if data_dir:
        for pattern in ("{}.csv", "{}*.parquet"):
            paths = {split: sorted(folder.glob(pattern.format(split))) for split in _SPLITS}
            if all(paths.values()):
                return paths
    return {}


def _fetch(folder: Path) -> None:
    # It takes seconds to import.
    from datasets import load_dataset

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in _SPLITS:
            load_dataset(_HUB, split=split).to_parquet(str(folder / f"{split}.parquet"))
    except Exception as error:  # a network may fail in any way
        raise fetch_failed("train.csv and test.csv", error) from error


def _read(files: dict[str, list[Path]]) -> Texts:
    text: dict[str, list[str]] = {split: [] for split in _SPLITS}
    label: dict[str, list[int]] = {split: [] for split in _SPLITS}
    for split in _SPLITS:
        for path in files[split]:
            try:
                rows = _csv(path) if path.suffix == ".csv" else _parquet(path)
            except Exception as error:  # a file may hold anything
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise _damaged(path, reason) from error
            for item, topic in rows:
                if topic not in range(len(_NAMES)):
                    raise _damaged(path, f"a class of number {topic}")
                text[split].append(item)
                label[split].append(topic)
        if not text[split]:
            raise _damaged(files[split][0], "no rows")
    y = {split: np.array(label[split], dtype=np.int64) for split in _SPLITS}
    return Texts("agnews", text["train"], y["train"], text["test"], y["test"], _NAMES)


def _csv(path: Path) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", newline="") as file:
        # In the published files classes count from 1.
        return [
            (f"{title} {description}", int(number) - 1)
            for number, title, description in csv.reader(file)
        ]


def _parquet(path: Path) -> list[tuple[str, int]]:
    from pyarrow import parquet  # type: ignore[import-untyped]

    table = parquet.read_table(path, columns=["text", "label"])
    return list(zip(table["text"].to_pylist(), map(int, table["label"].to_pylist()), strict=True))


def _damaged(path: Path, reason: str) -> UserError:
    allowed = f"rows of a class, a title and a description, or of text and label; {path}: {reason}"
    return refuse("dataset", "agnews", allowed)
