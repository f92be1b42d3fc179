"""Settings: what a class declares as its own, and the values that it reads."""

from __future__ import annotations

import operator
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar

from split_unlearning.foundations.errors import IgnoredError, UserError, refuse

Value = bool | int | float | str

Kind = TypeVar("Kind", bool, int, float, str)

# TOML's integers end here, and so do seeds and ids; a larger number is a slip of the finger.
TOO_LARGE = 2**63

_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Option:
    """One setting.

    The type of `default` is the type of every value. `allowed` says in words what `admits` checks,
    by default the type alone. A text that is `mixed` may be a number, which then needs no quotes.
    """

    default: Value
    allowed: str = ""
    admits: Callable[[Any], bool] = lambda _: True
    meaning: str = ""
    mixed: bool = False

    @property
    def description(self) -> str:
        """What is allowed, in words."""
        return self.allowed or _KINDS[type(self.default)]

    def take(self, name: str, value: object) -> Value:
        """Return a value as the type of the default; an integer may stand for a number.

        Raises
        ------
        UserError
            If it has another type, or is not allowed.
        """
        kind = type(self.default)
        if self.mixed and type(value) in (int, float):
            value = str(value)
        if kind is float and type(value) is int and abs(value) < TOO_LARGE:
            value = float(value)
        if type(value) is not kind:
            raise refuse(name, value, f"{_KINDS[kind]} ({self.description})")
        if not self.admits(value):
            raise refuse(name, value, self.description)
        return value

    def read(self, name: str, text: str) -> Value:
        """Read a text as a value of the default's type; raises as `take`."""
        try:
            return read_value(self.default, text)
        except ValueError as error:
            raise refuse(name, text, self.description) from error


def is_positive(value: float) -> bool:
    """Say whether a number is above zero, and none that nobody can mean."""
    return 0 < value < TOO_LARGE


def is_not_negative(value: float) -> bool:
    """Say whether a number is not below zero, and none that nobody can mean."""
    return 0 <= value < TOO_LARGE


def positive(default: float, meaning: str) -> Option:
    """Declare a number above zero, of the default's type."""
    allowed = "an integer >= 1" if isinstance(default, int) else "a number > 0"
    return Option(default, allowed, is_positive, meaning)


def not_negative(default: float, meaning: str) -> Option:
    """Declare a number that is not below zero, of the default's type."""
    allowed = f"{_KINDS[type(default)]} >= 0"
    return Option(default, allowed, is_not_negative, meaning)


def between(default: float, allowed: str, meaning: str) -> Option:
    """Declare a number in an interval, written as in ``0 < x <= 1``."""
    low, above, _, below, high = allowed.split()
    compare = {"<": operator.lt, "<=": operator.le}

    def admits(value: float) -> bool:
        return bool(compare[above](float(low), value) and compare[below](value, float(high)))

    return Option(default, allowed, admits, meaning)


def one_of(default: str | int, choices: tuple[str | int, ...], meaning: str) -> Option:
    """Declare a choice."""
    return Option(default, ", ".join(map(str, choices)), lambda value: value in choices, meaning)


def flag(meaning: str) -> Option:
    """Declare what is off by default."""
    return Option(False, "true, false", meaning=meaning)


def text_of(default: str, allowed: str, meaning: str) -> Option:
    """Declare a text; what it says is checked where it is read."""
    return Option(default, allowed, meaning=meaning)


def name_of(default: str, meaning: str) -> Option:
    """Declare a name that a registry looks up, names of entry points included."""
    return text_of(default, "a name that `split-unlearning list` shows", meaning)


class Options(Mapping[str, Value]):
    """The values of settings by name, each read with its type."""

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f"Options({self._values!r})"

    def integer(self, name: str) -> int:
        """Return an integer."""
        return self._typed(name, int)

    def number(self, name: str) -> float:
        """Return a number."""
        return self._typed(name, float)

    def text(self, name: str) -> str:
        """Return a text."""
        return self._typed(name, str)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        return self._typed(name, bool)

    def _typed(self, name: str, kind: type[Kind]) -> Kind:
        value = self._values[name]
        if not isinstance(value, kind):
            raise TypeError(f"the setting {name} is {value!r}, not {_KINDS[kind]}")
        return value


class Owner:
    """A class with settings of its own; a subclass reads those of its bases too.

    It declares them in `own_options`; `ignores` names inherited ones that it does not read.
    """

    own_options: ClassVar[Mapping[str, Option]] = {}
    ignores: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """Return every setting that it and its bases declare."""
        return merged(*(vars(kind).get("own_options", {}) for kind in reversed(cls.__mro__)))

    @classmethod
    def reads(cls) -> dict[str, Option]:
        """Return every setting that it reads."""
        return {name: one for name, one in cls.declared().items() if name not in cls.ignores}

    @classmethod
    def filled(cls, given: Mapping[str, Value]) -> Options:
        """Return given values, and the default of every declared setting that is not given."""
        return Options({**defaults_of(cls.declared()), **given})


def setting(option: Option, key: str = "") -> Any:
    """Declare a field of `Settings`; the key is by default the field's name with dashes."""
    return field(default=option.default, metadata={"option": option, "key": key})


class Settings:
    """Base of dataclasses with fields that are settings; `setting` declares such a field."""

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """Return the option of each field that is a setting, by its key."""
        return {key: option for key, (_, option) in cls._by_key().items()}

    @classmethod
    def of(cls, options: Mapping[str, Value], /, **others: Any) -> Self:
        """Return an object with the values of settings; `others` are its other fields."""
        read = {name: options[key] for key, (name, _) in cls._by_key().items()}
        return cls(**read, **others)

    @classmethod
    def _by_key(cls) -> dict[str, tuple[str, Option]]:
        """Return the name and the option of each field that is a setting, by its key."""
        return {
            one.metadata["key"] or one.name.replace("_", "-"): (one.name, one.metadata["option"])
            for one in fields(cls)  # type: ignore[arg-type]
            if "option" in one.metadata
        }


def defaults_of(declared: Mapping[str, Option]) -> dict[str, Value]:
    """Return the default of each setting."""
    return {name: option.default for name, option in declared.items()}


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
    """Read the run-config key ``options``, the settings of plug-ins.

    The text is ``name=value name=value``, quoted as in a shell. Every declared option has a value
    in the answer.

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
    values = defaults_of(declared)
    for name, _, given in words:
        if name not in declared:
            why = refuse("options", f"{name}={given}", _known(declared))
            raise IgnoredError(why, "options", f"the strategy or method that reads {name}")
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


def declares_wrongly(owner: type[Owner]) -> str | None:
    """Say what is wrong with what a class from outside declares, or None."""
    for kind in owner.__mro__:
        options = vars(kind).get("own_options", {})
        if not isinstance(options, Mapping) or not all(
            isinstance(option, Option) for option in options.values()
        ):
            return "its own_options are no mapping of names to Option"
    if not isinstance(owner.ignores, frozenset):
        return "its ignores are no frozenset of names of settings"
    return None


def _known(declared: Mapping[str, Option]) -> str:
    if not declared:
        return "'', neither the strategy nor the unlearning method has settings of its own"
    return "; ".join(f"{name}, {option.description}" for name, option in declared.items())
