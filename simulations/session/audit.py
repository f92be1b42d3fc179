"""What comes of the answers to an audit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from split_unlearning.evaluation.outputs import Outputs, joined
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.transport.message import Message


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
        told = message.tensors
        try:
            part = Outputs(
                client=np.full(len(told["ids"]), client, dtype=np.int64),
                ids=told["ids"].astype(np.int64),
                labels=told["labels"].astype(np.int64),
                split=told["split"].astype(np.int64),
                forgotten_by=told["forgotten-by"].astype(np.int64),
                probabilities=told["probabilities"].astype(np.float32),
            )
        except ValueError as error:
            raise ClientFailureError(f"client {client} answered the audit: {error}") from error
        parts.append(part)
    return joined(parts)
