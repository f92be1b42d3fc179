"""What a run guarantees of its privacy, and what attacks find, in the words of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from split_unlearning.evaluation.observed import Observed
from split_unlearning.simulations.config import RunConfig
from split_unlearning.strategies.server.segment import ServerSegment
from split_unlearning.strategies.server.shards import Shards

_AUDITED = "who has outputs.safetensors: with audit=true clients gave the run labels and outputs"
_SEED_IS_KNOWN = "whoever knows the run's seed, from which this simulation draws {}"


def privacy_of(config: RunConfig, uploads: Mapping[int, int]) -> dict[str, Any] | None:
    """Return what is guaranteed of everything that a run has done so far; None if nothing is.

    Parameters
    ----------
    config : RunConfig
        What the run was asked to do.
    uploads : mapping of int to int
        How many uploads of its training samples each client has made by now.

    Returns
    -------
    dict or None
        ``mechanism``; ``unit``, at which the guarantee holds; ``epsilon_per_release`` and
        ``delta_per_release``; ``releases`` of the same unit, and ``epsilon`` and ``delta`` of all
        of them together; ``covers`` and ``does_not_cover``, in one line each.
    """
    used = config.protocol().uses
    guarantee = None
    if "label-mechanism" in used and config.label_mechanism == "rr-with-prior":
        guarantee = _of_told_labels(config.label_epsilon)
    elif "epsilon" in used and config.epsilon != "none":
        guarantee = _of_masked_uploads(config, uploads)
    # Noise on gradients guarantees nothing.
    if guarantee is not None and config.audit:
        guarantee["does_not_cover"].append(_AUDITED)
    return guarantee


def _of_told_labels(epsilon: float) -> dict[str, Any]:
    """Return the guarantee of labels that are told by randomised response, once each."""
    return {
        "mechanism": "rr-with-prior, with a uniform prior",
        "unit": "one train record's label",
        "epsilon_per_release": epsilon,
        "delta_per_release": 0.0,
        # A sample's label is told alike in every epoch, stage and retraining.
        "releases": 1,
        "epsilon": epsilon,
        "delta": 0.0,
        "covers": [
            "what the server is sent while it learns and while a method goes through its stages, "
            "and all that follows from that, given the images"
        ],
        "does_not_cover": [
            _SEED_IS_KNOWN.format("what is told"),
            "images and smashed data: what they show of a label without it being told",
            "a request that names a label: the samples that are not visited after it had that one",
            "labels of test samples: clients answer how many of each label were predicted right",
        ],
    }


def _of_masked_uploads(config: RunConfig, uploads: Mapping[int, int]) -> dict[str, Any]:
    """Return the guarantee of noise on smashed data, for who has uploaded most often."""
    privacy = config.label_privacy()
    mechanism = privacy.mechanism
    assert mechanism is not None
    copies = privacy.expansion.high if privacy.copies == "replicate" else 1
    spent = mechanism.spent(copies * max(uploads.values(), default=0))
    unit = "one train record's smashed data"
    if mechanism.unit == "element":
        unit = f"one number of {unit}, for who knows all its others"
    uncovered = [
        "the client segment, which was trained on the record",
        "the masked labels, and what follows from how many records come under each",
        "test records, whose smashed data are uploaded without noise",
        "a request that names a label, and which masked labels are gone after it",
    ]
    if privacy.copies == "modes":
        uncovered.append("the choice of a masked label, for which the record was looked at")
    if privacy.secrets == "seed":
        uncovered.append(_SEED_IS_KNOWN.format("the noise and the map of labels"))
    return {
        "mechanism": f"{mechanism.kind}, clipped to {mechanism.clip:g}, copies by {privacy.copies}",
        "unit": unit,
        "epsilon_per_release": mechanism.epsilon,
        "delta_per_release": 0.0 if mechanism.kind == "laplace" else mechanism.delta,
        "releases": spent.releases,
        "epsilon": spent.epsilon,
        "delta": spent.delta,
        "pure_epsilon": spent.pure_epsilon,
        "uploads": {str(client): made for client, made in sorted(uploads.items())},
        "covers": ["what is uploaded, given the client segment and the masked label"],
        "does_not_cover": uncovered,
    }


def attacked(
    server: ServerSegment, real_of: NDArray[np.int64], seed: int
) -> tuple[dict[str, Any], frozenset[int]]:
    """Attack the masked labels under which the server received smashed data.

    Parameters
    ----------
    server : ServerSegment
        What it cached is all that the attacks go by.
    real_of : array of int64, shape (E,)
        The real label of each masked one, to score them.
    seed : int
        Of the attacks' draws.

    Returns
    -------
    dict, frozenset of int
        ``attacks``, with name and scores of each, the ``strongest`` and a
        ``vanished_are_one_label`` that is not known; and the masked labels that were received.
    """
    # Clustering takes scikit-learn, whose import takes a second that only who attacks should wait.
    from split_unlearning.evaluation.label_matching import match_labels, strongest

    received = server.call(Shards.received)
    smashed = received["smashed"].astype(np.float32)
    labels = received["labels"].astype(np.int64)
    observed = Observed(
        smashed.reshape(len(smashed), -1), labels, received["clients"].astype(np.int64)
    )
    seen = np.unique(labels)
    attacks = match_labels(observed, real_of, len(np.unique(real_of[seen])), seed)
    found = {
        "attacks": [asdict(attack) for attack in attacks],
        "strongest": strongest(attacks).name,
        "vanished_are_one_label": None,
    }
    return found, frozenset(seen.tolist())
