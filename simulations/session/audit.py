"""An audit: whether it can be given, and what comes of the answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from split_unlearning.clients.base import SplitClient
from split_unlearning.evaluation.outputs import Outputs, joined
from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Options
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.transport.message import Message


def check_given_away(options: Options) -> None:
    """Refuse that clients give something to the run that has nowhere to go, or must not be.

    Raises
    ------
    UserError
        In one line.
    """
    for key in ("audit", "keep-models"):
        if options[key] and not options["out"]:
            raise refuse(key, True, "false (without out there is no folder to write it to)")
        if options[key] and options["state-dir"]:
            allowed = "false (with state-dir: it shows what that folder is to forget)"
            raise refuse(key, True, allowed)


def check_audited(strategy: type[SplitStrategy], client: type[SplitClient]) -> None:
    """Refuse an audit of predictions that do not say how probable labels are.

    Raises
    ------
    UserError
        In one line.
    """
    for kind, scored, audited in (
        (strategy, "predictions_for", "outputs_for"),
        (client, "predicted", "probabilities"),
    ):
        # A class with predictions of its own says in its own way, too, how probable labels are.
        predicting = next(base for base in kind.__mro__ if scored in vars(base))
        if audited not in vars(predicting):
            says = f"{predicting.__name__} defines {scored} and not {audited}"
            raise refuse("audit", True, f"false ({says})")


def outputs_of(answers: Mapping[int, Message]) -> Outputs:
    """Return what clients answered an audit, one client after the other.

    Raises
    ------
    ClientFailureError
        If nobody answered, or an answer does not hold together.
    """
    if not answers:
        raise ClientFailureError("audit=true: no client answered the audit")
    parts = []
    for client, message in sorted(answers.items()):
        tensors = message.tensors
        try:
            part = Outputs(
                client=np.full(len(tensors["ids"]), client, dtype=np.int64),
                ids=tensors["ids"].astype(np.int64),
                labels=tensors["labels"].astype(np.int64),
                split=tensors["split"].astype(np.int64),
                forgotten_by=tensors["forgotten-by"].astype(np.int64),
                probabilities=tensors["probabilities"].astype(np.float32),
            )
        except ValueError as error:
            raise ClientFailureError(f"client {client} answered the audit: {error}") from error
        parts.append(part)
    return joined(parts)
