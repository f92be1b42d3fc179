"""What a run guarantees of its privacy, and what attacks find, in the words of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from split_unlearning.clients.label_privacy.settings import LabelPrivacy
from split_unlearning.evaluation.observed import Observed
from split_unlearning.reporting.result import LabelAttack, Privacy
from split_unlearning.simulations.config import RunConfig
from split_unlearning.strategies.server.segment import ServerSegment
from split_unlearning.strategies.server.shards import Shards

_AUDITED = "who has outputs.safetensors: with audit=true clients gave the run labels and outputs"
_SEED_IS_KNOWN = "whoever knows the run's seed, from which this simulation draws {}"


def privacy_of(config: RunConfig, uploads: Mapping[int, int]) -> Privacy | None:
    """Return what is guaranteed of everything that a run has done so far; None if nothing is.

    `uploads` says how many uploads of its training samples each client has made by now.
    """
    audited = [_AUDITED] if config.audit else []
    # Noise on gradients guarantees nothing.
    if config.own["label-mechanism"] == "rr-with-prior":
        return _of_randomised_labels(config.own.number("label-epsilon"), audited)
    if config.own["epsilon"] != "none":
        return _of_masked_uploads(config, uploads, audited)
    return None


def _of_randomised_labels(epsilon: float, audited: Sequence[str]) -> Privacy:
    """Return the guarantee of labels that go through randomised response, once each."""
    return Privacy(
        mechanism="rr-with-prior, with a uniform prior",
        unit="one train record's label",
        epsilon_per_release=epsilon,
        delta_per_release=0.0,
        # A sample's label is told alike in every epoch, stage and retraining.
        releases=1,
        epsilon=epsilon,
        delta=0.0,
        covers=(
            "what the server is sent while it learns and while a method goes through its stages, "
            "and all that follows from that, given the images",
        ),
        does_not_cover=(
            _SEED_IS_KNOWN.format("what is told"),
            "images and smashed data: what they show of a label without it being told",
            "a request that names a label: the samples that are not visited after it had that one",
            "labels of test samples: clients answer how many of each label were predicted right",
            *audited,
        ),
    )


def _of_masked_uploads(
    config: RunConfig, uploads: Mapping[int, int], audited: Sequence[str]
) -> Privacy:
    """Return the guarantee of noise on smashed data, for the client with the most uploads."""
    privacy = LabelPrivacy.of(config.own)
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
    return Privacy(
        mechanism=f"{mechanism.kind}, clipped to {mechanism.clip:g}, copies by {privacy.copies}",
        unit=unit,
        epsilon_per_release=mechanism.epsilon,
        delta_per_release=0.0 if mechanism.kind == "laplace" else mechanism.delta,
        releases=spent.releases,
        epsilon=spent.epsilon,
        delta=spent.delta,
        pure_epsilon=spent.pure_epsilon,
        uploads=dict(sorted(uploads.items())),
        covers=("what is uploaded, given the client segment and the masked label",),
        does_not_cover=(*uncovered, *audited),
    )


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
        "attacks": tuple(LabelAttack(**asdict(attack)) for attack in attacks),
        "strongest": strongest(attacks).name,
    }
    return found, frozenset(seen.tolist())
