"""Keyword arguments as a run config: underscores stand for the dashes of its keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import FunctionType
from typing import cast

import numpy as np

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Value
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.paths import from_here


def read_settings(given: Mapping[str, object], engine: str) -> dict[str, Value]:
    """Return run-config keys and their values; paths are meant from the current folder.

    A path may be a ``pathlib.Path``, a number may be one of NumPy's, several requests may be a list
    of texts, several clients that ask may be a list of numbers, and a strategy, a method or a model
    may be the class or the function itself. Whether keys and values are possible is checked by
    `RunConfig.from_mapping`.

    Raises
    ------
    UserError
        For what is defined in a notebook or a script, where another process cannot import it.
    """
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return from_here({key: _value(key, value, engine) for key, value in named.items()})


def read_config(given: Mapping[str, object], engine: str) -> RunConfig:
    """Return the run config of keyword arguments.

    Raises
    ------
    UserError
        As `read_settings` and `RunConfig.from_mapping`.
    """
    return RunConfig.from_mapping(read_settings(given, engine))


def _value(key: str, given: object, engine: str) -> Value:
    value = given.item() if isinstance(given, np.generic) else given
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, type | FunctionType):
        path = f"{value.__module__}:{value.__qualname__}"
        if engine != "local" and value.__module__ == "__main__":
            allowed = f"one in a file of its own (engine={engine!r} has other processes)"
            raise refuse(key, path, allowed)
        return path
    if key == "forget" and isinstance(value, list | tuple):
        return ";".join(map(str, value))
    if key == "forget-client" and isinstance(value, list | tuple):
        return ",".join(map(str, value))
    # Of any other type: the key's owner refuses it.
    return cast(Value, value)
