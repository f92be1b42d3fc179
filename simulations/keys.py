"""Every key of the run config: those that belong to no one else, and those of their owners.

``python -m split_unlearning.simulations.keys`` writes the table of all keys in ``pyproject.toml``,
because Flower refuses keys that it does not find there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import tomli_w

from split_unlearning.clients.base import load_client
from split_unlearning.clients.setting import ClientSetting
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import (
    Option,
    Settings,
    Value,
    between,
    defaults_of,
    flag,
    merged,
    name_of,
    not_negative,
    one_of,
    setting,
    text_of,
)
from split_unlearning.models.split import CutModel
from split_unlearning.models.training import TrainingSettings
from split_unlearning.simulations.data.backdoor import Backdoor
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.data.loading import DataSettings
from split_unlearning.simulations.data.selection import Selection
from split_unlearning.simulations.data.tokenizer import Tokens
from split_unlearning.strategies.base import SplitStrategy, StrategySetting
from split_unlearning.strategies.registry import STRATEGIES
from split_unlearning.strategies.server.setting import Resources, SegmentSetting
from split_unlearning.transport.ledger import NetworkSpeed
from split_unlearning.unlearning.methods import METHODS
from split_unlearning.unlearning.request import RequestSettings


@dataclass(frozen=True, kw_only=True)
class Keys(Settings):
    """The keys that belong to no one else."""

    strategy: str = setting(name_of("splitwiper", "how to learn"))
    unlearning: str = setting(name_of("retrain", "how to forget"))
    options: str = setting(text_of("", "'name=value name=value'", "a plug-in's own settings"))
    distribution: str = setting(
        one_of(
            "heterogeneous-labels",
            tuple(DISTRIBUTIONS.names()),
            "how samples are dealt to clients",
        )
    )
    seed: int = setting(not_negative(0, "of every random draw"))
    round_timeout: float = setting(
        between(3600.0, "0 < x <= 1000000", "seconds a client has for an answer")
    )
    out: str = setting(
        text_of("", "an absolute path, or empty for none", "folder that result.json is written to")
    )
    overwrite: bool = setting(flag("a result that is in out may be replaced"))
    state_dir: str = setting(
        text_of(
            "",
            "an absolute path to a new folder, or empty for none",
            "folder that keeps what later requests need",
        )
    )
    key_dir: str = setting(
        text_of(
            "",
            "an absolute path, or empty for none",
            "folder of keys, apart from state-dir, that show every change of it by others",
        )
    )
    verify: bool = setting(flag("train again without what state-dir has forgotten, and compare"))
    benchmark: str = setting(
        text_of(
            "",
            "an absolute path, or empty",
            "folder of a benchmark, whose runs are carried out instead; the command line says it",
        )
    )


OWNERS: tuple[type[Settings], ...] = (
    Keys,
    DataSettings,
    Selection,
    CutModel,
    RequestSettings,
    TrainingSettings,
    SegmentSetting,
    Resources,
    ClientSetting,
    StrategySetting,
    Backdoor,
    NetworkSpeed,
)
"""What every run has: whichever strategy, method and distribution are chosen, it reads these."""


def general() -> dict[str, Option]:
    """Return the keys of every run."""
    return merged(*(owner.declared() for owner in OWNERS))


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
    read: dict[str, Mapping[str, Option]] = {}
    # A name that stands for nothing is refused where it is chosen.
    for name in STRATEGIES.built_in():
        with suppress(UserError):
            strategies[name] = STRATEGIES.get(name)
    for name in sorted(strategies, key=lambda name: len(strategies[name].__mro__)):
        read[name] = of_protocol(strategies[name])
    for name in METHODS.built_in():
        with suppress(UserError):
            read[name] = {**read.get(name, {}), **METHODS.get(name).reads()}
    return {**read, **of_distributions(), "texts": Tokens.declared()}


def owned() -> dict[str, Option]:
    """Return the keys that not every run reads."""
    return merged(*readers().values())


def by_owner() -> dict[str, dict[str, Option]]:
    """Return each key of an owner under the first owner that reads it; it names the others, too."""
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
