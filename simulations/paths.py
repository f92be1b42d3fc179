"""Paths in a run config: a user means them from the current folder, a run has none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from split_unlearning.foundations.options import Value

# What needs torch is imported where it is needed: the command line answers at once.


def from_here(settings: Mapping[str, Value]) -> dict[str, Value]:
    """Make the paths in some settings absolute: they are meant from the current folder."""
    chosen = dict(settings)
    for key, absolute in _PATHS.items():
        if isinstance(value := chosen.get(key), str):
            chosen[key] = absolute(value)
    return chosen


def absolute(path: str) -> str:
    """Return a path that a user wrote, from the root."""
    return os.path.abspath(os.path.expanduser(path))


def _absolute_after(prefix: str, text: str) -> str:
    """Make the path behind a prefix absolute; leave what has no such prefix or no path."""
    text = text.strip()
    path = text.removeprefix(prefix)
    return prefix + absolute(path) if path and path != text else text


def _datasets_from_here(text: str) -> str:
    from split_unlearning.simulations.data.loading import names_in

    names = map(str.strip, names_in(text))
    return "+".join(_absolute_after(name.partition(":")[0] + ":", name) for name in names)


def forget_from_here(text: str) -> str:
    """Make the paths of files with ids absolute, in one request or several."""
    return ";".join(_absolute_after("ids:", part) for part in text.split(";"))


def _pretrained_from_here(text: str) -> str:
    """Make the path of a folder absolute; a name that no folder here has may be one on the hub."""
    from split_unlearning.models.bert import is_hub_name

    return text if not text or (is_hub_name(text) and not Path(text).is_dir()) else absolute(text)


_PATHS: Mapping[str, Callable[[str], str]] = {
    "dataset": _datasets_from_here,
    "data-dir": lambda text: absolute(text) if text else text,
    "forget": forget_from_here,
    "pretrained": _pretrained_from_here,
    "out": lambda text: absolute(text) if text else text,
    "state-dir": lambda text: absolute(text) if text else text,
    "key-dir": lambda text: absolute(text) if text else text,
}
