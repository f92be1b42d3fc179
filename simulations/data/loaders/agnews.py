"""AG News, news items of four topics: as csv files, or as parquet files as the hub has them."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.simulations.data.loaders.source import Source, Texts

_NAMES = ("World", "Sports", "Business", "Sci/Tech")
_HUB = "fancyzhx/ag_news"
_SPLITS = ("train", "test")


def agnews(data_dir: str, download: bool) -> Source:
    """AG News: 120,000 and 7,600 items (Zhang, Zhao and LeCun 2015).

    Parameters
    ----------
    data_dir : str
        An absolute path to a folder with ``train.csv`` and ``test.csv`` as they were published
        (class from 1 to 4, title, description), or ``train*.parquet`` and ``test*.parquet`` with
        the columns ``text`` and ``label``, as the hub has them.
    download : bool
        Whether Hugging Face's datasets may fetch them into that folder.

    Raises
    ------
    UserError
        If files are missing; when they are read, if one is damaged.
    """
    found = _files(data_dir)
    if data_dir and download and not found:
        _fetch(Path(data_dir))
        found = _files(data_dir)
    if not found:
        allowed = (
            "for dataset='agnews' a folder with train.csv and test.csv (class, title, description) "
            "or train*.parquet and test*.parquet (text, label); download=true fetches them into it"
        )
        raise refuse("data-dir", data_dir, allowed)
    files = tuple(path for split in _SPLITS for path in found[split])
    return Source("agnews", files, partial(_read, found))


def _files(data_dir: str) -> dict[str, list[Path]]:
    """Return the files of both splits; nothing if one has none."""
    folder = Path(data_dir)
    if data_dir:
        for pattern in ("{}.csv", "{}*.parquet"):
            found = {split: sorted(folder.glob(pattern.format(split))) for split in _SPLITS}
            if all(found.values()):
                return found
    return {}


def _fetch(folder: Path) -> None:
    # It takes seconds to import.
    from datasets import load_dataset

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in _SPLITS:
            load_dataset(_HUB, split=split).to_parquet(str(folder / f"{split}.parquet"))
    except Exception as error:  # a network may fail in any way
        reason = " ".join(str(error).split())[:200]
        allowed = f"false, with train.csv and test.csv in data-dir ({reason})"
        raise refuse("download", True, allowed) from error


def _read(files: dict[str, list[Path]]) -> Texts:
    text: dict[str, list[str]] = {split: [] for split in _SPLITS}
    label: dict[str, list[int]] = {split: [] for split in _SPLITS}
    for split in _SPLITS:
        for path in files[split]:
            try:
                rows = _csv(path) if path.suffix == ".csv" else _parquet(path)
            except Exception as error:  # a file may hold anything
                raise _damaged(
                    path, " ".join(f"{type(error).__name__}: {error}".split())
                ) from error
            for one, of in rows:
                if of not in range(len(_NAMES)):
                    raise _damaged(path, f"a class of number {of}")
                text[split].append(one)
                label[split].append(of)
        if not text[split]:
            raise _damaged(files[split][0], "no rows")
    y = {split: np.array(label[split], dtype=np.int64) for split in _SPLITS}
    return Texts("agnews", text["train"], y["train"], text["test"], y["test"], _NAMES)


def _csv(path: Path) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(number, title, told) for number, title, told in csv.reader(file)]
    # In the published files classes count from 1.
    return [(f"{title} {told}", int(number) - 1) for number, title, told in rows]


def _parquet(path: Path) -> list[tuple[str, int]]:
    from pyarrow import parquet  # type: ignore[import-untyped]

    table = parquet.read_table(path, columns=["text", "label"])
    return list(zip(table["text"].to_pylist(), map(int, table["label"].to_pylist()), strict=True))


def _damaged(path: Path, reason: str) -> UserError:
    allowed = f"rows of a class, a title and a description, or of text and label; {path}: {reason}"
    return refuse("dataset", "agnews", allowed)
