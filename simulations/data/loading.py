"""Data sets by name: what there is to learn, before anybody holds any of it."""

from __future__ import annotations

import re
import time
from functools import lru_cache

from split_unlearning.foundations.errors import refuse
from split_unlearning.simulations.data.cache import Arrays, Facts, fingerprint, kept
from split_unlearning.simulations.data.dataset import Dataset, Samples
from split_unlearning.simulations.data.joined import JoinedDataset
from split_unlearning.simulations.data.loaders.agnews import agnews
from split_unlearning.simulations.data.loaders.cifar import cifar
from split_unlearning.simulations.data.loaders.digits import digits
from split_unlearning.simulations.data.loaders.idx import idx
from split_unlearning.simulations.data.loaders.image_folder import image_folder
from split_unlearning.simulations.data.loaders.npz import npz
from split_unlearning.simulations.data.loaders.source import Source, Texts
from split_unlearning.simulations.data.text import Tokens

DATASETS: dict[str, str] = {
    "digits": "1,797 handwritten digits of 8x8 pixels, part of scikit-learn: no download",
    "mnist": "70,000 handwritten digits of 28x28 pixels, from data-dir",
    "fashion-mnist": "70,000 pictures of clothing of 28x28 pixels, from data-dir or Debian's "
    "dataset-fashion-mnist",
    "cifar10": "60,000 colour photographs of 32x32 pixels in 10 classes, from data-dir",
    "cifar100": "60,000 colour photographs of 32x32 pixels in 100 classes, from data-dir",
    "agnews": "127,600 news items in 4 topics, as text for model=bert, from data-dir",
    "npz:PATH": "images of your own: a numpy.savez file with x_train, y_train, x_test, y_test, "
    "class_names; or texts: text_train and text_test in the place of x_train and x_test",
    "folder:PATH": "images of your own: files in PATH/train/CLASS and PATH/test/CLASS, of one size",
    "A+B": "two or more of the above, such as cifar10+mnist, for distribution=different-tasks",
}

_PUBLISHED = {"mnist": idx, "fashion-mnist": idx, "cifar10": cifar, "cifar100": cifar}


# A "+" in a path is none that joins: behind one that does stands the name of a data set.
_JOINT = re.compile(r"\+(?=(?:digits|" + "|".join(_PUBLISHED) + r")(?:\+|$)|npz:|folder:)")


def names_in(name: str) -> list[str]:
    """Return the names of the data sets that a name joins; of one, that name."""
    return _JOINT.split(name)


@lru_cache(maxsize=2)
def load_all(
    name: str, data_dir: str = "", download: bool = False, tokens: Tokens | None = None
) -> Samples:
    """Load a data set, or several joined by ``+``; a process keeps the last ones it asked for.

    Parameters and what is raised as of `load`; ``data-dir`` and ``download`` go to those data sets
    that know them.
    """
    names = names_in(name)
    if len(names) == 1:
        return load(name, data_dir, download, tokens)
    if len(set(names)) < len(names):
        raise refuse("dataset", name, "data sets that differ")
    theirs = (data_dir, download) if set(names) & _PUBLISHED.keys() else ("", False)
    if theirs != (data_dir, download):
        raise refuse("dataset", name, "one that reads data-dir, or no data-dir and no download")
    return JoinedDataset(
        name, tuple(load(one, *theirs) if one in _PUBLISHED else load(one) for one in names)
    )


@lru_cache(maxsize=2)
def load(
    name: str, data_dir: str = "", download: bool = False, tokens: Tokens | None = None
) -> Dataset:
    """Load one data set; a process keeps the last ones it asked for.

    What was read once is kept in files that all processes of a machine share, see
    `simulations.data.cache`. Files that have changed since are read again.

    Parameters
    ----------
    name : str
        As in `DATASETS`, with absolute paths.
    data_dir : str
        The folder of the data sets that torchvision knows; an absolute path, or empty for none.
    download : bool
        Whether torchvision, or for texts Hugging Face, may fetch into `data_dir` what is not there.
    tokens : Tokens, optional
        How texts become token ids; images do not read it.

    Returns
    -------
    Dataset
        Its arrays are read-only, because everybody shares them.

    Raises
    ------
    UserError
        If there is no such data set, its files are not there or not what they have to be, or
        `data_dir` or `download` mean nothing to it.
    """
    tokens = tokens or Tokens()
    # With pretrained weights it may be the tokenizer alone that is to be fetched.
    source = _source(name, data_dir, download and not (tokens.pretrained and name != "agnews"))

    def read() -> Dataset:
        found = source.read()
        return _tokenized(found, tokens) if isinstance(found, Texts) else found

    may_be_text = name == "agnews" or name.startswith("npz:")
    read_as = repr((name, tokens)) if may_be_text else name
    files = source.files + (tokens.files if may_be_text else ())
    now = time.time()
    try:
        before = fingerprint("data", read_as, files, now)
    except OSError:
        # The loader says what is wrong in the user's words, if anything is.
        return _frozen(read())

    def make() -> tuple[Arrays, Facts]:
        dataset = read()
        if fingerprint("data", read_as, files, now) != before:
            raise refuse("dataset", name, "files that nobody changes while they are read")
        arrays = {key: getattr(dataset, key) for key in ("x_train", "y_train", "x_test", "y_test")}
        return arrays, {"class_names": dataset.class_names, "largest": dataset.largest}

    arrays, facts = kept(before, make)
    return Dataset(
        name, **arrays, class_names=tuple(facts["class_names"]), largest=facts["largest"]
    )


def _source(name: str, data_dir: str, download: bool) -> Source:
    if name in _PUBLISHED:
        return _PUBLISHED[name](name, data_dir, download)
    if name == "agnews":
        return agnews(data_dir, download)
    for key, value, nothing in (("data-dir", data_dir, ""), ("download", download, False)):
        if value != nothing:
            raise refuse(key, value, f"{nothing!r} (dataset={name!r} ignores it)")
    if name == "digits":
        return digits()
    if name.startswith("npz:"):
        return npz(name)
    if name.startswith("folder:"):
        return image_folder(name)
    raise refuse("dataset", name, ", ".join(DATASETS))


def _tokenized(texts: Texts, tokens: Tokens) -> Dataset:
    return Dataset(
        texts.name,
        tokens.of(texts.text_train),
        texts.y_train,
        tokens.of(texts.text_test),
        texts.y_test,
        texts.class_names,
    )


def _frozen(dataset: Dataset) -> Dataset:
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        array.flags.writeable = False
    return dataset
