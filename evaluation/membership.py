"""Membership inference: whether outputs show that a model was trained on a sample.

The shadow-model attack (Shokri et al. 2017): a classifier learns from shadow models, whose members
are known, and is then asked about the target. After a forgetting it is asked about the forgotten
samples; a second one looks at the outputs before and after together (Chen et al. 2021).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Features = NDArray[np.float64]

_STRICT = 0.01
# The grain of float32 at 1: what a probability is known to.
_LEAST = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Roc:
    """Rates at every threshold, from the highest to the lowest; corners only."""

    false_positive_rate: list[float]
    true_positive_rate: list[float]


@dataclass(frozen=True)
class Membership:
    """How well an attack tells members from non-members, and how many there were of each."""

    hit_rate: float
    """Share of the members that it calls members."""
    false_positive_rate: float
    """Share of the non-members that it calls members."""
    auc: float
    """How likely a member scores higher than a non-member; a tie counts half. 0.5 for guessing."""
    tpr_at_1_percent_fpr: float
    """The largest share of members called members while at most 1 % of non-members are. (Of fewer
    than 100 non-members: while none is.)"""
    members: int
    non_members: int
    roc: Roc

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


def features(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> Features:
    """Return what the attack looks at: loss, confidence, sorted posterior.

    Of probabilities (n, labels) and true labels (n,) these are, shape (n, labels + 2), the
    logarithms of the loss (cross entropy), of what confidence, the largest probability, lacks to 1,
    and of the posterior, largest first. Logarithms, because on samples that a model has learned
    well these differ by orders of magnitude; differences below the grain of float32 are ignored.
    """
    wide = np.clip(probabilities.astype(np.float64), _LEAST, 1)
    true = wide[np.arange(len(labels)), labels]
    posterior = -np.sort(-wide, axis=1)
    return np.column_stack(
        [
            np.log(np.maximum(-np.log(true), _LEAST)),
            np.log(np.maximum(1 - posterior[:, 0], _LEAST)),
            np.log(posterior),
        ]
    )


def pair_features(before: Features, after: Features) -> Features:
    """Return what the attack on a pair looks at: both models' features, and how they differ.

    Both are from `features`, shape (n, f), of the same samples in the same order; the result has
    the shape (n, 3 f).
    """
    return np.column_stack([before, after, after - before])


class MembershipAttack:
    """A classifier of members and non-members, which count alike however many there are.

    It learns from the features of shadow models' samples, shapes (n, f) and (m, f).

    Raises
    ------
    ValueError
        If one of the two is empty.
    """

    def __init__(self, members: Features, non_members: Features) -> None:
        if not len(members) or not len(non_members):
            raise ValueError("an attack learns from members and non-members; one of them is empty")
        self._classifier: Pipeline = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
        )
        is_member = np.repeat([1, 0], [len(members), len(non_members)])
        self._classifier.fit(np.concatenate([members, non_members]), is_member)

    def scores(self, of: Features) -> Features:
        """Return how much each sample looks like a member; above 0 it is called one."""
        return np.asarray(self._classifier.decision_function(of), dtype=np.float64)

    def on(self, members: Features, non_members: Features) -> Membership:
        """Return how well it tells a target's members from non-members; parameters alike."""
        return judged(self.scores(members), self.scores(non_members))


def judged(members: Features, non_members: Features) -> Membership:
    """Return how well scores, shapes (n,) and (m,), tell members from non-members.

    A sample with a score above 0 is called a member.

    Raises
    ------
    ValueError
        If one of the two is empty.
    """
    if not len(members) or not len(non_members):
        raise ValueError("rates need members and non-members; one of them is empty")
    is_member = np.repeat([1, 0], [len(members), len(non_members)])
    together = np.concatenate([members, non_members])
    # Every threshold: a corner that a straight line leaves out may be the last within 1 %.
    false, true, _ = roc_curve(is_member, together, drop_intermediate=False)
    corners = roc_curve(is_member, together)
    return Membership(
        hit_rate=float((members > 0).mean()),
        false_positive_rate=float((non_members > 0).mean()),
        auc=float(roc_auc_score(is_member, together)),
        tpr_at_1_percent_fpr=float(true[false <= _STRICT].max()),
        members=len(members),
        non_members=len(non_members),
        roc=Roc(corners[0].tolist(), corners[1].tolist()),
    )
