"""Data sets by name: what there is to learn, before any client holds a part of it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.once import once
from split_unlearning.foundations.options import Settings, flag, name_of, setting, text_of
from split_unlearning.simulations.data.cache import Arrays, Facts, fingerprint, kept
from split_unlearning.simulations.data.dataset import Dataset, Samples
from split_unlearning.simulations.data.joined import JoinedDataset
from split_unlearning.simulations.data.loaders.registry import DATASETS
from split_unlearning.simulations.data.loaders.source import Loader, Source, Texts
from split_unlearning.simulations.data.tokenizer import Tokens

JOINED = {
    "A+B": "two or more of the above, such as cifar10+mnist, for distribution=different-tasks"
}

# A "+" may be part of a path: it joins only where the name of a data set follows.
_NAME = "|".join(
    re.escape(name.removesuffix("PATH")) + ("" if name.endswith(":PATH") else r"(?:\+|$)")
    for name in DATASETS.names()
)
_JOINT = re.compile(rf"\+(?={_NAME})")


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """What there is to learn, by name, and where its files are."""

    dataset: str = setting(name_of("digits", "what to learn"))
    data_dir: str = setting(
        text_of("", "an absolute path, or empty", "folder of the data sets that torchvision knows")
    )
    download: bool = setting(flag("torchvision may fetch into data-dir what is not there"))

    def load(self, tokens: Tokens) -> Samples:
        """Load what is named; arguments and errors as of `load_all`."""
        return load_all(self.dataset, self.data_dir, self.download, tokens)


def names_in(name: str) -> list[str]:
    """Return the names of the data sets that a name joins; of a single data set, its name."""
    return _JOINT.split(name)


@once(maxsize=2)
def load_all(
    name: str, data_dir: str = "", download: bool = False, tokens: Tokens | None = None
) -> Samples:
    """Load a data set, or several joined by ``+``; a process keeps the last two.

    Arguments and errors are those of `load`; ``data-dir`` and ``download`` go to the data sets that
    read them.
    """
    names = names_in(name)
    if len(names) == 1:
        return load(name, data_dir, download, tokens)
    if len(set(names)) < len(names):
        raise refuse("dataset", name, "data sets that differ")
    reading = {part for part in names if _loader(part).reads_data_dir}
    if (data_dir or download) and not reading:
        raise refuse("dataset", name, "one that reads data-dir, or no data-dir and no download")
    return JoinedDataset(
        name,
        tuple(load(part, data_dir, download) if part in reading else load(part) for part in names),
    )


@once(maxsize=2)
def load(
    name: str, data_dir: str = "", download: bool = False, tokens: Tokens | None = None
) -> Dataset:
    """Load one data set; a process keeps the last two.

    What was read once is kept in files that all processes of a machine share, see
    `simulations.data.cache`. Files that have changed since are read again.

    The name is as in `DATASETS`, with absolute paths. `data_dir` is the folder of published data
    sets, an absolute path; with `download` torchvision, or for texts Hugging Face, may fetch into
    it what is not there. `tokens` say how texts become token ids; images do not read them.

    Returns
    -------
    Dataset
        Its arrays are read-only, because all clients of a process share them.

    Raises
    ------
    UserError
        If there is no such data set, its files are not there or not what they have to be, or
        `data_dir` or `download` mean nothing to it.
    """
    tokens = tokens or Tokens()
    loader = _loader(name)
    # With pretrained weights, the tokenizer alone may be what is to be fetched.
    wanted = not tokens.pretrained or (loader.may_be_text and loader.reads_data_dir)
    source = _source(name, data_dir, download and wanted)

    def read() -> Dataset:
        content = source.read()
        return _tokenized(content, tokens) if isinstance(content, Texts) else content

    read_as = repr((name, tokens)) if loader.may_be_text else name
    files = source.files + (tokens.files if loader.may_be_text else ())
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


def _loader(name: str) -> Loader:
    kind, colon, _ = name.partition(":")
    known = f"{kind}:PATH" if colon else name
    if known not in DATASETS.names():
        raise refuse("dataset", name, ", ".join([*DATASETS.names(), *JOINED]))
    return DATASETS.get(known)


def _source(name: str, data_dir: str, download: bool) -> Source:
    return _loader(name).source(name, data_dir, download)


def _tokenized(texts: Texts, tokens: Tokens) -> Dataset:
    return Dataset(
        texts.name,
        tokens.ids(texts.text_train),
        texts.y_train,
        tokens.ids(texts.text_test),
        texts.y_test,
        texts.class_names,
    )


def _frozen(dataset: Dataset) -> Dataset:
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        array.flags.writeable = False
    return dataset
