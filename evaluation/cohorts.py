"""Which samples a forgetting is judged by: forgotten, retained, held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from split_unlearning.evaluation.outputs import Outputs

Rows = NDArray[np.bool_]


def forgotten_in(last: Outputs, outputs: Outputs, tasks: set[int]) -> Rows:
    """Return which of the samples in `outputs` some tasks forget, shape (len(outputs),).

    `last` are the outputs after the last task, which know what every task forgot.
    """
    meant = last.where(np.isin(last.forgotten_by, sorted(tasks)) & last.is_train)
    return np.asarray(np.isin(keys(outputs), keys(meant)))


def retained_in(outputs: Outputs) -> Rows:
    """Return which samples the model was trained on and nothing has forgotten by then."""
    return np.asarray(outputs.is_train & (outputs.forgotten_by < 0))


def held_out_for(outputs: Outputs, members: Rows) -> tuple[Rows, str]:
    """Return the test samples that stand beside some members: never seen, and of their kind.

    Both masks have the shape (n,). The test samples are of the same clients and labels as the
    members; where there is none, of the same labels. The text says which of the two it is: ``same
    client and label``, ``same label``, or ``none``.
    """
    pairs = outputs.client * outputs.probabilities.shape[1] + outputs.labels
    for kind, of in (("same client and label", pairs), ("same label", outputs.labels)):
        rows = outputs.is_test & np.isin(of, of[members])
        if rows.any():
            return rows, kind
    return np.zeros(len(outputs), dtype=bool), "none"


def check_apart(members: Outputs, non_members: Outputs) -> None:
    """Refuse a sample that is on both sides: whatever an attack says of it is right.

    Raises
    ------
    ValueError
        With how many there are.
    """
    both = len(np.intersect1d(keys(members), keys(non_members)))
    if both:
        raise ValueError(f"{both} samples are both members and non-members")


def keys(outputs: Outputs) -> NDArray[np.int64]:
    """Return a number for each sample, of any client: ids are rows of a split of the data set."""
    return np.asarray(3 * outputs.ids + outputs.split)
