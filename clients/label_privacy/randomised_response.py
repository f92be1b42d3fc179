"""Randomised response with a prior: each label is randomised once, before training.

RRWithPrior of Ghazi, Golowich, Kumar, Manurangsi and Zhang, "Deep Learning with Label Differential
Privacy", NeurIPS 2021. A model that is trained with randomised labels is ε-differentially private
for one record's label, however often it is trained, as long as each label is randomised once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.clients.label_privacy.guarantee import SEED_IS_KNOWN, Guarantee
from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Option, Options, is_not_negative, one_of
from split_unlearning.unlearning.exactness import Ids, mixed

Probabilities = NDArray[np.float64]

LABEL_MECHANISM: Mapping[str, Option] = {
    "label-mechanism": one_of(
        "none",
        ("none", "rr-with-prior"),
        "how clients tell their labels: as they are, or by randomised response",
    ),
    "label-epsilon": Option(
        0.0,
        "a number > 0, or 0 without a label-mechanism",
        is_not_negative,
        "ε of the label mechanism, for a record's label",
    ),
}
"""The settings of a client that tells its labels."""


def check_label_mechanism(options: Options) -> None:
    """Refuse a mechanism without its epsilon, and the other way round.

    Raises
    ------
    UserError
        In one line.
    """
    mechanism, epsilon = options["label-mechanism"], options["label-epsilon"]
    if mechanism == "none" and epsilon:
        raise refuse("label-epsilon", epsilon, "0 (without a label-mechanism)")
    if mechanism != "none" and not epsilon:
        allowed = f"a number > 0 (with label-mechanism={mechanism!r})"
        raise refuse("label-epsilon", epsilon, allowed)


def guarantee_of_randomised_labels(options: Options) -> Guarantee | None:
    """Return what is guaranteed of labels that are randomised once each; None without mechanism."""
    if options["label-mechanism"] == "none":
        return None
    epsilon = options.number("label-epsilon")
    return Guarantee(
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
            SEED_IS_KNOWN.format("what is told"),
            "images and smashed data: what they show of a label without it being told",
            "a request that names a label: the samples that are not visited after it had that one",
            "labels of test samples: clients answer how many of each label were predicted right",
        ),
    )


def uniform_prior(num_labels: int) -> Probabilities:
    """Return the prior without knowledge; with it RRWithPrior is k-ary randomised response."""
    return np.full(num_labels, 1 / num_labels)


def top_k_response(prior: Sequence[float] | Probabilities, k: int, epsilon: float) -> Probabilities:
    """Return the distribution of RRTop-k (Algorithm 2): one of the k likeliest labels a priori.

    The prior, shape (labels,), is how probable each label is without knowing it; of equally likely
    ones the smaller number comes first. A prior made of the labels that are to be protected is a
    release of its own, which ε does not count. There are `k` labels to answer with.

    Returns
    -------
    array of float64, shape (labels, labels)
        By the true label, the probability of each answer. A label among the k is kept with
        probability e^ε / (e^ε + k - 1); any other is answered by one of the k, each alike.

    Raises
    ------
    UserError
        If ε is not a number > 0, the prior no distribution, or k no number of labels.
    """
    likely = _checked(prior, epsilon)
    if not 1 <= k <= len(likely):
        raise refuse("k", k, f"from 1 to {len(likely)}, the number of labels")
    answers = np.argsort(-likely, kind="stable")[:k]
    answered = np.zeros((len(likely), len(likely)))
    answered[:, answers] = 1 / k
    # Numerator and denominator are divided by e^ε, which may overflow.
    whole = 1 + (k - 1) * np.exp(-epsilon)
    answered[np.ix_(answers, answers)] = np.exp(-epsilon) / whole
    answered[answers, answers] = 1 / whole
    return answered


def best_k(prior: Sequence[float] | Probabilities, epsilon: float) -> int:
    """Return the number of labels to answer with (Algorithm 3, lines 1-3).

    It is the k that maximises w_k, the probability that the true label is kept: e^ε / (e^ε + k - 1)
    times the sum of the k largest priors. Of several the largest.
    """
    likely = _checked(prior, epsilon)
    ks = np.arange(1, len(likely) + 1)
    weights = np.cumsum(-np.sort(-likely)) / (1 + (ks - 1) * np.exp(-epsilon))
    return int(ks[weights == weights.max()][-1])


def response_with_prior(prior: Sequence[float] | Probabilities, epsilon: float) -> Probabilities:
    """Return the distribution of RRWithPrior (Algorithm 3): RRTop-k with the best k.

    No ε-differentially private mechanism keeps the true label more often (Theorem 3 there), if
    labels are distributed as the prior says. Arguments, result and errors are those of
    `top_k_response`.
    """
    return top_k_response(prior, best_k(prior, epsilon), epsilon)


def draws(ids: Ids, seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each sample, from its id and the seed alone.

    So a sample's label is the same in each epoch and each retraining: it is randomised once. Anyone
    who knows the seed knows the number, and with it often the label.
    """
    return np.ldexp((mixed(ids, seed) >> np.uint64(11)).astype(np.float64), -53)


def randomised_labels(
    labels: torch.Tensor, response: Probabilities, numbers: NDArray[np.float64]
) -> torch.Tensor:
    """Return randomised labels: int64, shape (n,).

    `response` has, by the true label, the probability of each answer; `numbers`, in [0, 1), the
    position of each sample's answer in that distribution.
    """
    reached = response.cumsum(axis=1)
    # So the last is exactly 1, and rounding reaches no answer without probability.
    reached /= reached[:, -1:]
    below = reached[labels.numpy()] <= numbers[:, None]
    return torch.from_numpy(below.sum(axis=1))


def _checked(prior: Sequence[float] | Probabilities, epsilon: float) -> Probabilities:
    """Return the prior as an array."""
    if not 0 < epsilon < np.inf:
        raise refuse("epsilon", epsilon, "a number > 0")
    likely = np.asarray(prior, dtype=np.float64)
    if likely.ndim != 1 or not (likely >= 0).all() or not np.isclose(likely.sum(), 1):
        raise refuse("prior", prior, "a probability for each label, 1 together")
    return likely
