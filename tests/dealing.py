"""Samples dealt out by the name of a distribution."""

import numpy as np

from split_unlearning.simulations.data.distributions.distribution import Dealing
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS

BY_LABEL = ("homogeneous-labels", "partial-overlap", "heterogeneous-labels", "iid")
BY_LIBRARY = ("uniform", "dirichlet", "pathological", "shards")


def dealt_out(y_train, y_test, *, distribution, num_classes=0, options=None, **more):
    """Return the plan; all labels are of one task unless `task_of_label` says otherwise."""
    kind = DISTRIBUTIONS.get(distribution)
    more.setdefault("task_of_label", np.zeros(num_classes, dtype=np.int64))
    return kind.deal(
        Dealing(y_train=y_train, y_test=y_test, options=kind.filled(options or {}), **more)
    )
