"""Objects named in a run config: built in, from another package, or by dotted path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from split_unlearning.foundations.errors import UserError, refuse

T = TypeVar("T")


def load_object(key: str, path: str) -> Any:
    """Import the object of a dotted path, ``package.module:Object``; `key` begins the error line.

    Raises
    ------
    UserError
        If it does not import.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
        named = getattr(module, attribute)
    except Exception as error:  # a stranger's module may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise _does_not_import(key, path, reason) from error
    if _is_ours(module):
        raise _does_not_import(key, path, f"its name is split_unlearning.{path} now")
    return named


def _does_not_import(key: str, path: str, reason: str) -> UserError:
    return UserError(
        f"{key}={path!r} does not import ({reason}); "
        "allowed: package.module:Object of an installed package"
    )


def _is_ours(module: ModuleType) -> bool:
    """Say whether a module is one of this package's, imported a second time by its bare name."""
    if module.__name__.startswith("split_unlearning."):
        return False
    try:
        spec = find_spec(f"split_unlearning.{module.__name__}")
    except ModuleNotFoundError:
        return False
    if spec is None or spec.origin is None or module.__file__ is None:
        return False
    return Path(module.__file__).samefile(spec.origin)


# Searching all installed packages takes milliseconds, and every message to a client looks up names.
@lru_cache(maxsize=32)
def offered(group: str, search_path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the names and dotted paths of an entry-point group on a search path."""
    return tuple((point.name, point.value) for point in entry_points(group=group))


class Registry(Generic[T]):
    """Objects by name, the values of the run-config key `key`.

    A name is looked up among the built-in ones, then among the entry points that other packages
    register in `group`; a name with a colon is a dotted path, ``package.module:Object``. `check`
    returns a sentence on what is wrong with an object from outside, or None.
    """

    def __init__(
        self, key: str, group: str = "", check: Callable[[object], str | None] | None = None
    ) -> None:
        self.key = key
        self._group = group
        self._check = check
        self._built_in: dict[str, T | str] = {}

    def register(self, name: str, value: T | str) -> None:
        """Give an object a name; a dotted path in its place is imported on first use.

        Raises
        ------
        UserError
            If the name is taken.
        """
        if name in self._built_in:
            raise UserError(f"{self.key} {name!r} is registered twice")
        self._built_in[name] = value

    def built_in(self) -> list[str]:
        """List the built-in names, sorted."""
        return sorted(self._built_in)

    def names(self) -> list[str]:
        """List every known name, sorted."""
        return sorted({*self._built_in, *(name for name, _ in self._entry_points())})

    def get(self, name: str) -> T:
        """Return the object of a name.

        Raises
        ------
        UserError
            If the name is unknown or ambiguous, its path does not import, or the object does not
            fit.
        """
        # The search path may hold a package more than once.
        paths = sorted({path for known, path in self._entry_points() if known == name})
        built_in = self._built_in.get(name)
        if len(paths) + (built_in is not None) > 1:
            owners = [*(["built in"] if built_in is not None else []), *paths]
            raise UserError(f"{self.key} {name!r} is registered twice: {', '.join(owners)}")
        if built_in is not None:
            return self._load(name, built_in) if isinstance(built_in, str) else built_in
        if paths:
            return self._load(name, paths[0])
        if ":" in name:
            return self._load(name, name)
        raise refuse(self.key, name, f"{', '.join(self.names())}, or package.module:Object")

    def _entry_points(self) -> tuple[tuple[str, str], ...]:
        """Return the names that installed packages offer, and their dotted paths."""
        return offered(self._group, tuple(sys.path)) if self._group else ()

    def _load(self, name: str, path: str) -> T:
        """Import an object from outside and check it."""
        value: T = load_object(self.key, path)
        complaint = self._check(value) if self._check else None
        if complaint:
            raise UserError(f"{self.key}={name!r} does not fit: {complaint}")
        return value
