"""What a run guarantees of its privacy, in the words and numbers of ``result.json``."""

from __future__ import annotations

from typing import Any

from simulations.config import RunConfig
from strategies.base import SplitStrategy


def privacy_of(config: RunConfig, strategy: SplitStrategy) -> dict[str, Any] | None:
    """Return what is guaranteed of everything that a run has done so far; None if nothing is.

    Parameters
    ----------
    config : RunConfig
        What the run was asked to do.
    strategy : SplitStrategy
        What does it.

    Returns
    -------
    dict or None
        ``mechanism``; ``unit``, at which the guarantee holds; ``epsilon_per_release`` and
        ``delta_per_release``; ``releases`` of the same unit, and ``epsilon`` and ``delta`` of all
        of them together; ``covers`` and ``does_not_cover``, in one line each.
    """
    if config.label_mechanism == "rr-with-prior":
        return _of_told_labels(config.label_epsilon)
    # Noise on gradients guarantees nothing.
    return None


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
            "whoever knows the run's seed, from which this simulation draws what is told",
            "which labels a client holds: its records have that in common, and there are many",
            "images and smashed data: what they show of a label without it being told",
            "a request that names a label: the samples that are not visited after it had that one",
            "labels of test samples: clients answer how many of each label were predicted right",
        ],
    }
