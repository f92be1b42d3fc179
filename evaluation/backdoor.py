"""Whether a backdoor still opens: how often its trigger makes a test sample the label it means."""

from __future__ import annotations

import numpy as np

from split_unlearning.evaluation.outputs import Outputs


def success(outputs: Outputs, label: int, clients: set[int]) -> float | None:
    """Return the share of test samples of other labels that the trigger turns into a label.

    Only samples of `clients` count, those in whose training samples the trigger was planted: what
    enters the network through another client's segment has never met it. None if there is no test
    sample with the trigger.
    """
    rows = outputs.is_triggered & (outputs.labels != label)
    rows &= np.isin(outputs.client, sorted(clients))
    if not rows.any():
        return None
    return float((outputs.probabilities[rows].argmax(axis=1) == label).mean())
