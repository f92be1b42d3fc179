"""What a run guarantees of its privacy, and what attacks find, in the words of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from split_unlearning.clients.base import load_client
from split_unlearning.evaluation.observed import Observed
from split_unlearning.reporting.result import LabelAttack, Privacy
from split_unlearning.simulations.config import RunConfig
from split_unlearning.strategies.server.segment import ServerSegment
from split_unlearning.strategies.server.shards import Shards

_AUDITED = "who has outputs.safetensors: with audit=true clients gave the run labels and outputs"


def privacy_of(config: RunConfig, uploads: Mapping[int, int]) -> Privacy | None:
    """Return what is guaranteed of everything that a run has done so far; None if nothing is.

    `uploads` says how many uploads of its training samples each client has made by now.
    """
    client = load_client(config.protocol().client)
    guarantee = client.guarantee(config.all_options, uploads)
    if guarantee is None:
        return None
    said = asdict(guarantee)
    if config.own["audit"]:
        said["does_not_cover"] += (_AUDITED,)
    return Privacy(**said.pop("more"), **said)


def attacked(
    server: ServerSegment, real_of: NDArray[np.int64], seed: int
) -> tuple[dict[str, Any], frozenset[int]]:
    """Attack the masked labels under which the server received smashed data.

    The attacks go by nothing but what the server cached. `real_of`, int64 of shape (E,), is the
    real label of each masked one, to score them.

    Returns
    -------
    dict, frozenset of int
        ``attacks`` and the ``strongest`` of them, as `LabelMatching` has them; and the masked
        labels that were received.
    """
    # Clustering takes scikit-learn. Its import takes a second, which runs without attacks save.
    from split_unlearning.evaluation.label_matching import match_labels, strongest

    received = server.call(Shards.received)
    smashed = received["smashed"].astype(np.float32)
    labels = received["labels"].astype(np.int64)
    observed = Observed(
        smashed.reshape(len(smashed), -1), labels, received["clients"].astype(np.int64)
    )
    seen = np.unique(labels)
    attacks = match_labels(observed, real_of, len(np.unique(real_of[seen])), seed)
    scored = {
        "attacks": tuple(LabelAttack(**asdict(attack)) for attack in attacks),
        "strongest": strongest(attacks).name,
    }
    return scored, frozenset(seen.tolist())
