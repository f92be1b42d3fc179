"""Unlearning methods by name."""

from __future__ import annotations

from models.registry import Registry


class UnlearningMethod:
    """How to forget, whatever the protocol; `name` is what a result calls it."""

    name: str = ""


class Retrain(UnlearningMethod):
    """Train again without the forgotten samples: SISA's way, and the reference for all others."""

    name = "retrain"


def _complaint(value: object) -> str | None:
    """Say why `value` cannot be an unlearning method."""
    if not (isinstance(value, type) and issubclass(value, UnlearningMethod)):
        return "an unlearning method is a subclass of UnlearningMethod"
    return None


METHODS: Registry[type[UnlearningMethod]] = Registry(
    "unlearning", group="split_unlearning.unlearning", check=_complaint
)
METHODS.register("retrain", "unlearning.methods:Retrain")
