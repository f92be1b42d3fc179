"""Unlearning methods by name."""

from __future__ import annotations

from models.registry import Registry


class UnlearningMethod:
    """How to forget, whatever the protocol; `name` is what a result calls it."""

    name: str = ""


class Retrain(UnlearningMethod):
    """Train again without the forgotten samples: SISA's way, and the reference for all others."""

    name = "retrain"


METHODS: Registry[type[UnlearningMethod]] = Registry(
    "unlearning", group="split_unlearning.unlearning"
)
METHODS.register("retrain", "unlearning.methods:Retrain")
