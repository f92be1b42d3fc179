"""Every key of the run config: those that belong to no one else, and those of their owners.

``python -m split_unlearning.simulations.keys`` writes the table of all keys in ``pyproject.toml``,
because Flower refuses keys that it does not find there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from split_unlearning.clients.base import load_client
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import (
    Option,
    Value,
    between,
    defaults_of,
    flag,
    is_not_negative,
    merged,
    not_negative,
    one_of,
    positive,
)
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.data.text import TEXT_OPTIONS
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.registry import STRATEGIES
from split_unlearning.strategies.server.precision import PRECISIONS
from split_unlearning.transport.floats import FLOAT_CODECS
from split_unlearning.unlearning.methods import METHODS


def _key(option: Option) -> Any:
    return field(default=option.default, metadata={"option": option})


def _text(default: str, allowed: str, meaning: str, mixed: bool = False) -> Any:
    return _key(Option(default, allowed, meaning=meaning, mixed=mixed))


def _name(default: str, meaning: str) -> Any:
    # Registries look names up themselves, entry points included.
    return _text(default, "a name that `split-unlearning list` shows", meaning)


def _reserved(meaning: str) -> Any:
    """Declare how much Ray reserves: it shares one unit, but not several."""

    def admits(value: float) -> bool:
        return is_not_negative(value) and (value <= 1 or value == int(value))

    return _key(Option(0.0, "a number from 0 to 1, or a whole number", admits, meaning))


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys that belong to no one else; their dashes are underscores here."""

    strategy: str = _name("splitwiper", "how to learn")
    unlearning: str = _name("retrain", "how to forget")
    dataset: str = _name("digits", "what to learn")
    data_dir: str = _text(
        "", "an absolute path, or empty", "folder of the data sets that torchvision knows"
    )
    download: bool = _key(flag("torchvision may fetch into data-dir what is not there"))
    samples: int = _key(
        not_negative(0, "train samples that the run sees, of all labels in proportion; 0 for all")
    )
    test_samples: int = _key(not_negative(0, "the same of the test samples"))
    shadow_share: float = _key(
        between(
            0.0,
            "0 <= x < 1",
            "share of each label's samples, train and test, kept from the run for its shadow runs",
        )
    )
    shadow: int = _key(
        not_negative(
            0,
            "0 for a run that shadow runs are compared with; "
            "from 1, which of its shadow runs this is",
        )
    )
    distribution: str = _key(
        one_of(
            "heterogeneous-labels",
            tuple(DISTRIBUTIONS.names()),
            "how samples are dealt to clients",
        )
    )
    model: str = _name("cnn", "the network that is cut")
    cut: str = _text(
        "", "a layer of the model, or empty for its own cut", "the last layer that a client holds"
    )
    client_norm: str = _key(
        one_of(
            "keep",
            ("keep", "group"),
            "group norm in the place of batch norm, on the client's side of the cut",
        )
    )
    forget: str = _text(
        "class:2",
        "class:NAME, client:N, samples:SHARE@class:NAME, ids:FILE, or empty for nothing",
        "what to forget; several requests are separated by ;",
    )
    forget_client: int = _key(
        Option(
            0,
            "the number of a client, from 0",
            is_not_negative,
            "whose samples class: and samples: mean",
        )
    )
    pretrain_epochs: int = _key(not_negative(10, "N, epochs a client trains alone"))
    server_epochs: int = _key(positive(30, "M, epochs of the split-learning phase"))
    batch_size: int = _key(positive(32, "samples a batch"))
    learning_rate: float = _key(positive(0.1, "step size of SGD"))
    momentum: float = _key(between(0.0, "0 <= x < 1", "momentum of SGD"))
    weight_decay: float = _key(not_negative(0.0, "weight decay of SGD"))
    round_timeout: float = _key(
        between(3600.0, "0 < x <= 1000000", "seconds a client has for an answer")
    )
    bandwidth_mbps: float = _key(positive(100.0, "for transmission seconds; never slept"))
    latency_ms: float = _key(not_negative(0.0, "round trip, for transmission seconds"))
    upload_chunk_mb: float = _key(
        between(16.0, "0 < x <= 1000", "largest upload in one message, 10^6 bytes")
    )
    codec: str = _key(
        one_of(
            "float32",
            FLOAT_CODECS,
            "what smashed data and gradients are rounded to where they cross the cut",
        )
    )
    server_num_cpus: float = _reserved("CPUs that Ray reserves for the server segment")
    server_num_gpus: float = _reserved("GPUs that Ray reserves for the server segment")
    threads: int = _key(
        Option(
            1,
            "an integer from 1 to 1024",
            lambda value: 1 <= value <= 1024,
            "threads of each segment; they change the last bits",
        )
    )
    precision: str = _key(
        one_of(
            "float32",
            PRECISIONS,
            "what the server segment's passes compute with; weights, loss and clients stay float32",
        )
    )
    options: str = _text("", "'name=value name=value'", "a plug-in's own settings")
    out: str = _text(
        "", "an absolute path, or empty for none", "folder that result.json is written to"
    )
    overwrite: bool = _key(flag("a result that is in out may be replaced"))
    score_every: int = _key(
        not_negative(
            0, "epochs of training after which accuracy is measured too; 0 for at the end alone"
        )
    )
    audit: bool = _key(
        flag("clients give the run the labels and the outputs of all their samples, written to out")
    )
    keep_models: bool = _key(
        flag("clients give the run their segments, written to out with the server's after a phase")
    )
    backdoor: str = _text(
        "",
        "a label's name or number, or empty for no backdoor",
        "label that a white square stands for, planted in what is to be forgotten, for an audit",
        mixed=True,
    )
    state_dir: str = _text(
        "",
        "an absolute path to a new folder, or empty for none",
        "folder that keeps what later requests need",
    )
    key_dir: str = _text(
        "",
        "an absolute path, or empty for none",
        "folder of keys, apart from state-dir, that show every change of it by others",
    )
    benchmark: str = _text(
        "",
        "an absolute path, or empty",
        "folder of a benchmark, whose runs are carried out instead; the command line says it",
    )
    verify: bool = _key(flag("train again without what state-dir has forgotten, and compare"))
    seed: int = _key(not_negative(0, "of every random draw"))


def general() -> dict[str, Option]:
    """Return the keys that belong to no one else."""
    return {one.name.replace("_", "-"): one.metadata["option"] for one in fields(Keys)}


def of_protocol(strategy: type[SplitStrategy]) -> dict[str, Option]:
    """Return the settings that a strategy and its client read."""
    declared = merged(strategy.declared(), load_client(strategy.client).declared())
    return {name: one for name, one in declared.items() if name not in strategy.ignores}


def of_distributions() -> dict[str, Mapping[str, Option]]:
    """Return the settings of each distribution that has some."""
    reads = {name: DISTRIBUTIONS.get(name).reads() for name in DISTRIBUTIONS.names()}
    return {name: options for name, options in reads.items() if options}


def readers() -> dict[str, Mapping[str, Option]]:
    """Return the settings that each built-in owner reads, bases before those that build on them."""
    strategies: dict[str, type[SplitStrategy]] = {}
    found: dict[str, Mapping[str, Option]] = {}
    # A name that stands for nothing is refused where it is chosen.
    for name in STRATEGIES.built_in():
        with suppress(UserError):
            strategies[name] = STRATEGIES.get(name)
    for name in sorted(strategies, key=lambda name: len(strategies[name].__mro__)):
        found[name] = of_protocol(strategies[name])
    for name in METHODS.built_in():
        with suppress(UserError):
            found[name] = {**found.get(name, {}), **METHODS.get(name).reads()}
    return {**found, **of_distributions(), "texts": TEXT_OPTIONS}


def owned() -> dict[str, Option]:
    """Return the keys of all owners."""
    return merged(*readers().values())


def by_owner() -> dict[str, dict[str, Option]]:
    """Return each key of an owner once, under the first that reads it, which says who else does."""
    read = readers()
    homes: dict[str, dict[str, Option]] = {}
    for key, option in owned().items():
        owner, *others = [name for name, options in read.items() if key in options]
        also = f"{option.meaning} (also {', '.join(others)})" if others else option.meaning
        homes.setdefault(owner, {})[key] = replace(option, meaning=also)
    return homes


def declared() -> dict[str, Option]:
    """Return every key."""
    return merged(general(), owned())


def table(defaults: Mapping[str, Value]) -> str:
    """Return keys and their defaults as the table that Flower reads."""
    return f"[tool.flwr.app.config]\n{tomli_w.dumps(defaults)}"


def main() -> None:
    """Write the table in ``pyproject.toml`` anew."""
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    written = table(defaults_of(declared()))
    # A function, so that nothing in it is read as a reference to a group.
    text = re.sub(r"\[tool\.flwr\.app\.config\]\n[^\[]*(?=\n\[)", lambda _: written, text)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
