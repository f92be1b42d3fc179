"""A cell in the paper's terms, and how it differs from the paper's experiment."""

from __future__ import annotations

from dataclasses import dataclass

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Cell

CLIENTS, PRETRAIN_EPOCHS, BANDWIDTH = 5, 10, 100.0
_SERVER_EPOCHS = {"CIFAR-100": 50}
_FORGOTTEN = {"CIFAR-10": "bird", "CIFAR-100": "aquarium_fish", "CIFAR-10 + MNIST": "bird"}
_SIZES = {"CIFAR-10": 50_000, "CIFAR-100": 50_000, "CIFAR-10 + MNIST": 110_000}
_CIFAR_10 = frozenset(
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
)
_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "cifar10+mnist": "CIFAR-10 + MNIST"}


@dataclass(frozen=True)
class Forgotten:
    """A request: a share of a label's samples, 1 for all; `label` as it was written."""

    share: float
    label: str


def framework(cell: Cell, with_epsilon: bool) -> str | None:
    """Return what the paper calls how a cell learns and retrains; None if it has no such.

    `with_epsilon` says whether the published table tells privacy budgets apart.
    """
    if cell.setting("unlearning") != "retrain" or is_altered(cell):
        return None
    strategy = str(cell.setting("strategy"))
    if strategy in ("vanilla", "u-shaped", "splitwiper"):
        return strategy
    if strategy != "splitwiper-plus":
        return None
    expansion = str(cell.setting("expansion"))
    gamma = "range" if expansion == "1-3" else expansion
    if not with_epsilon:
        return f"splitwiper+ gamma={gamma}"
    return f"splitwiper+ gamma={gamma} eps={cell.setting('epsilon')}"


def is_altered(cell: Cell) -> bool:
    """Tell whether a baseline hides its labels, as none of the paper's does."""
    noise = ("label-mechanism", "gradient-noise")
    return any(cell.setting(key) not in (None, "none") for key in noise)


def dataset(benchmark: Benchmark, cell: Cell) -> str:
    """Return what the paper calls a cell's data set; its own name if the paper has none.

    The cell's ``paper_dataset`` says it, or the name of the data set; else the benchmark's, or, of
    a file, that its labels are those of CIFAR-10.
    """
    for key in ("paper_dataset", "paper-dataset"):
        if cell.coordinates.get(key):
            return str(cell.coordinates[key])
    name = str(cell.setting("dataset"))
    if name in _NAMES:
        return _NAMES[name]
    if benchmark.paper_dataset:
        return benchmark.paper_dataset
    return "CIFAR-10" if has_data_of_the_paper(cell) else name


def has_data_of_the_paper(cell: Cell) -> bool:
    """Return whether a cell's data set, or a file's labels, is one of the paper's."""
    name = str(cell.setting("dataset"))
    labels = cell.distribution.labels if cell.distribution else cell.labels
    is_file = name.partition(":")[0] in ("npz", "folder")
    return name in _NAMES or (is_file and set(labels) == _CIFAR_10)


def forgotten(request: str, labels: tuple[str, ...]) -> Forgotten | None:
    """Return what a request means, None if it is none of one label's samples.

    The request is ``class:NAME`` or ``samples:SHARE@class:NAME``, the label by name or by its
    number among `labels`, which are names as far as they are known.
    """
    kind, _, rest = request.partition(":")
    share, target = "1", f"class:{rest}"
    if kind == "samples":
        share, _, target = rest.partition("@")
    elif kind != "class":
        return None
    if ";" in request or not target.startswith("class:"):
        return None
    label = target.removeprefix("class:")
    if label not in labels and label.isdecimal() and int(label) < len(labels):
        label = labels[int(label)]
    try:
        return Forgotten(float(share), label)
    except ValueError:
        return None


def differences(
    benchmark: Benchmark, cell: Cell, paper_dataset: str, label: str | None
) -> list[str]:
    """Return what differs from the paper's experiment on one of its data sets, a few words each.

    `label` is the label that is forgotten; None where it does not matter.
    """
    found = []
    size = sum(map(sum, cell.distribution.train)) if cell.distribution else None
    full = _SIZES.get(paper_dataset)
    if size is not None and full is not None and size < full:
        found.append(f"{size:,} of {full:,} training samples")
    elif size is None and str(cell.setting("dataset")).partition(":")[0] in ("npz", "folder"):
        found.append("data of our own, of unknown size")
    if benchmark.small:
        found.append(
            "a small version" + (f" ({'; '.join(benchmark.reduced)})" if benchmark.reduced else "")
        )
    if cell.clients != CLIENTS:
        found.append(f"{cell.clients} clients, not {CLIENTS}")
    for key, theirs in (
        ("server-epochs", _SERVER_EPOCHS.get(paper_dataset, 30)),
        ("pretrain-epochs", PRETRAIN_EPOCHS),
    ):
        ours = cell.setting(key)
        if ours is not None and ours != theirs:
            found.append(f"{key}={ours}, not {theirs}")
    aim = _FORGOTTEN.get(paper_dataset)
    if label is not None and aim and label.replace("-", "_") != aim:
        found.append(f"forgets {label!r}, not {aim!r}")
    asking = str(cell.setting("forget-client") or 0)
    if label is not None and not asking.isdecimal():
        found.append(f"several clients forget it (forget-client={asking})")
    strategy = cell.setting("strategy")
    if strategy in ("vanilla", "u-shaped") and cell.setting("init-from") not in (
        None,
        "splitwiper",
    ):
        found.append("does not start from SplitWiper's pre-trained segments")
    if strategy in ("vanilla", "u-shaped") and cell.setting("client-sync") not in (None, "none"):
        found.append("clients hand their segment on")
    if strategy == "splitwiper-plus" and cell.setting("copies") not in (None, "replicate"):
        found.append(f"copies={cell.setting('copies')}, not replicate")
    return found
