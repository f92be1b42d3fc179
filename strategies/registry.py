"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable

from split_unlearning.foundations.options import declares_wrongly
from split_unlearning.foundations.registry import Registry
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.server.part import ServerPart
from split_unlearning.unlearning.methods import METHODS, Retrain, UnlearningMethod


def _complaint(value: object) -> str | None:
    """Say why `value` cannot be a strategy."""
    if not (isinstance(value, type) and issubclass(value, SplitStrategy)):
        return "a strategy is a subclass of split_unlearning.SplitStrategy"
    missing = sorted(value.__abstractmethods__)
    if missing:
        return f"it does not define {', '.join(missing)}"
    kinds = value.methods
    if not isinstance(kinds, tuple) or not all(_is_method(kind) for kind in kinds):
        return "its methods are no tuple of subclasses of UnlearningMethod"
    if not isinstance(getattr(value, "client", None), str) or ":" not in value.client:
        return "it does not name its client class: client = 'package.module:Class'"
    parts = value.server_parts
    if not isinstance(parts, tuple) or not all(_is_part(part) for part in parts):
        return "its server_parts are no tuple of subclasses of ServerPart"
    return declares_wrongly(value)


def _is_method(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, UnlearningMethod)


def _is_part(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, ServerPart)


STRATEGIES: Registry[type[SplitStrategy]] = Registry(
    "strategy", group="split_unlearning.strategies", check=_complaint
)
STRATEGIES.register(
    "gradient-projection", "split_unlearning.strategies.gradient_projection:CachingVanilla"
)
STRATEGIES.register("splitfed", "split_unlearning.strategies.splitfed:SplitFed")
STRATEGIES.register("splitwiper", "split_unlearning.strategies.splitwiper:SplitWiper")
STRATEGIES.register("splitwiper-plus", "split_unlearning.strategies.splitwiper_plus:SplitWiperPlus")
STRATEGIES.register("u-shaped", "split_unlearning.strategies.ushaped:UShaped")
STRATEGIES.register("vanilla", "split_unlearning.strategies.vanilla:Vanilla")


def carrying_out(name: str, method: type[UnlearningMethod]) -> type[SplitStrategy]:
    """Return the strategy that carries a name out where it is to forget by a method.

    Raises
    ------
    UserError
        As `Registry.get`.
    """
    return STRATEGIES.get(method.carried_out_by.get(name, name))


def ways_to(can: Callable[[type[SplitStrategy], type[UnlearningMethod]], bool]) -> str:
    """Say with which strategies, and otherwise with which methods, something can be done."""
    alone = [name for name in STRATEGIES.names() if can(STRATEGIES.get(name), Retrain)]
    others = [name for name in STRATEGIES.names() if name not in alone]
    methods = [
        name
        for name in METHODS.names()
        if any(can(carrying_out(one, METHODS.get(name)), METHODS.get(name)) for one in others)
    ]
    ways = [f"strategy={name}" for name in alone] + [f"unlearning={name}" for name in methods]
    return ", or ".join(f"with {way}" for way in ways)
