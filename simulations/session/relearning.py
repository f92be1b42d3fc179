"""Relearn time: how quickly what was forgotten is learned again."""

from __future__ import annotations

import numpy as np

from split_unlearning.evaluation.cohorts import forgotten_in
from split_unlearning.evaluation.outputs import Outputs
from split_unlearning.reporting.result import Relearning
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.server.scoring import Scoring


def relearn_time(
    strategy: SplitStrategy, before: Outputs, after: Outputs, task: int, most: int
) -> Relearning | None:
    """Have a copy of the server segment learn what a task forgot, until it is as good as it was.

    A model that has forgotten needs as many epochs as one that was retrained; one that only seems
    to have forgotten needs fewer. Client segments are frozen, so that nobody has to train.

    The strategy has been audited; `before` and `after` are the outputs of the model before and
    after the task of this number, and at most `most` epochs are tried.

    Returns
    -------
    Relearning or None
        None where the server does not know what a label is: behind masks, and in a U shape.
    """
    if strategy.server_part != "server" or not strategy.counts_by_label:
        return None
    had = before.where(forgotten_in(after, before, {task}))
    # Batch norm cannot take a batch of one.
    if len(had) < 2:
        return None
    wanted = float((had.probabilities.argmax(axis=1) == had.labels).mean())
    forgotten = {}
    for client in sorted(set(had.client.tolist())):
        # In the order of the upload: training samples first, as they are in the outputs.
        mine = after.where(after.is_train & (after.client == client))
        rows = np.flatnonzero(mine.forgotten_by == task)
        forgotten[client] = (rows, mine.labels[rows])
    epochs = strategy.server.call(Scoring.epochs_to_relearn, forgotten, wanted, most)
    return Relearning(epochs=epochs, most=most, accuracy=wanted)
