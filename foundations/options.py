"""Settings of a plug-in's own: declared by its classes, given together in one run-config key."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from split_unlearning.foundations.errors import UserError, refuse

Value = bool | int | float | str

_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Option:
    """One setting of a plug-in's own.

    Parameters
    ----------
    default : bool, int, float or str
        Its value if the user gives none; it also says of which type the values are.
    allowed : str
        What is allowed, in words; by default its type.
    admits : callable
        Says whether a value is.
    """

    default: Value
    allowed: str = ""
    admits: Callable[[Any], bool] = lambda _: True

    @property
    def description(self) -> str:
        """What is allowed, in words."""
        return self.allowed or _KINDS[type(self.default)]


def read_value(default: Value, text: str) -> Value:
    """Read a text as a value of the default's type.

    Raises
    ------
    ValueError
        If it does not read as one.
    """
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() == "true"
    if isinstance(default, str):
        return text
    return int(text) if isinstance(default, int) else float(text)


def read_options(text: str, declared: Mapping[str, Option]) -> dict[str, Value]:
    """Read the run-config key ``options``.

    Parameters
    ----------
    text : str
        ``name=value name=value``, quoted as in a shell.
    declared : mapping of str to Option
        What there is to be set.

    Returns
    -------
    dict
        The value of every declared option.

    Raises
    ------
    UserError
        If the text does not read, or names or sets what is not possible.
    """
    try:
        words = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise refuse("options", text, f"'name=value name=value' ({error})") from error
    if not all(name and equals for name, equals, _ in words):
        raise refuse("options", text, "'name=value name=value'")
    values = {name: option.default for name, option in declared.items()}
    for name, _, given in words:
        if name not in declared:
            raise refuse("options", f"{name}={given}", _known(declared))
        option = declared[name]
        wrong = refuse("options", f"{name}={given}", f"{name}, {option.description}")
        try:
            values[name] = read_value(option.default, given)
        except ValueError as error:
            raise wrong from error
        if not option.admits(values[name]):
            raise wrong
    return values


def merged(*parts: Mapping[str, Option]) -> dict[str, Option]:
    """Return the options that several classes declare.

    Raises
    ------
    UserError
        If two mean different things by one name.
    """
    options: dict[str, Option] = {}
    for part in parts:
        for name, option in part.items():
            if options.setdefault(name, option) != option:
                raise UserError(f"the option {name!r} is declared twice, and differently")
    return options


def _known(declared: Mapping[str, Option]) -> str:
    if not declared:
        return "'', neither the strategy nor the unlearning method has settings of its own"
    return "; ".join(f"{name}, {option.description}" for name, option in declared.items())
