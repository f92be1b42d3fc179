"""What a run config can name, in words: the tables of ``split-unlearning list``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from split_unlearning.foundations.options import Option
from split_unlearning.foundations.registry import Registry

if TYPE_CHECKING:
    from split_unlearning.strategies.base import SplitStrategy
    from split_unlearning.unlearning.methods import UnlearningMethod


def describe(registry: Registry[Any]) -> dict[str, str]:
    """Return the first line of each member's docstring; why, for one that cannot be imported."""
    lines = {}
    for name in registry.names():
        try:
            text = inspect.getdoc(registry.get(name)) or ""
        except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything
            text = f"{type(error).__name__}: {error}"
        lines[name] = text.partition("\n")[0]
    return lines


def matrix(
    strategies: Registry[type[SplitStrategy]], methods: Registry[type[UnlearningMethod]]
) -> dict[str, str]:
    """Return, by strategy, a mark below the name of each method that it can carry out."""
    from split_unlearning.simulations.config import fitting

    names = methods.names()
    lines = {"": "  ".join(names)}
    for strategy in strategies.names():
        possible = fitting(strategy)
        if not possible:
            # It cannot be used: why stands in the table of strategies.
            continue
        marks = ("x" if name in possible else "-" for name in names)
        lines[strategy] = "  ".join(
            f"{mark:{len(name)}}" for mark, name in zip(marks, names, strict=True)
        )
    return lines


def described(options: Mapping[str, Option]) -> dict[str, str]:
    """Return what each setting means, and its default."""
    return {key: f"{one.meaning} (default: {one.default!r})" for key, one in options.items()}


def table(title: str, lines: Mapping[str, str]) -> str:
    """Return a title, and a line for each name below it."""
    width = max(map(len, lines), default=0)
    named = (f"  {name:{width}}  {text}".rstrip() for name, text in lines.items())
    return "\n".join([title, *named])
