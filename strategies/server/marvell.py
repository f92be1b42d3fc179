"""Marvell: for a given power, the noise that best hides which label a gradient belongs to.

Li, Sun, Yang, Gao, Zhang, Xie, Smith and Wang, "Label Leakage and Protection in Two-party Split
Learning", ICLR 2022. Gradients of label k are taken to be normal, with a mean of their own and the
same variance in each dimension; how well any observer can tell two labels apart is bounded by the
sum of the two Kullback-Leibler divergences between the gradients as they are sent. Mathematics
only; `strategies.server.gradient_noise` takes it to a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Variances below this share of the gap are no smaller: a label with a single gradient has none.
_LEAST = 1e-12
# In logarithms, so a share.
_TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class TwoLabels:
    """What the gradients of two labels, 0 and 1, look like before noise.

    A gradient has d `dimensions`. The `gap` is ‖Δg‖² > 0, the squared distance of the two means;
    `variances` are u of label 0 and v of label 1, in each dimension; `share` is p, the share of
    gradients that are of label 1, between 0 and 1.
    """

    dimensions: int
    gap: float
    variances: tuple[float, float]
    share: float

    @property
    def shares(self) -> tuple[float, float]:
        """The share of gradients that are of label 0, and of label 1."""
        return 1 - self.share, self.share


@dataclass(frozen=True)
class Noise:
    """Variances of normal noise for gradients of label 0, and of label 1.

    `along` is λ1, in the direction of the gap, `across` λ2, in each of the other directions.
    """

    along: tuple[float, float]
    across: tuple[float, float]

    def power(self, labels: TwoLabels) -> float:
        """Return the mean square of the noise: p·tr(Σ1) + (1-p)·tr(Σ0)."""
        return sum(
            share * (along + (labels.dimensions - 1) * across)
            for share, along, across in zip(labels.shares, self.along, self.across, strict=True)
        )


NO_NOISE = Noise((0.0, 0.0), (0.0, 0.0))


def divergence(labels: TwoLabels, noise: Noise = NO_NOISE) -> float:
    """Return the sum of the two Kullback-Leibler divergences between noisy gradients, in nats.

    At ε < 4 of these no observer of a gradient reaches an area under the curve above
    1/2 + √ε/2 - ε/8 (the paper's Theorem 1).
    """
    u, v = labels.variances
    along = noise.along[0] + u, noise.along[1] + v
    across = noise.across[0] + u, noise.across[1] + v
    return _of_total(labels.dimensions, labels.gap, along, across)


def _of_total(
    dimensions: int, gap: float, along: tuple[float, float], across: tuple[float, float]
) -> float:
    """Return the divergence, given the variances of gradient and noise together."""
    ratio = across[0] / across[1]
    # ratio + 1 / ratio - 2, without the cancellation.
    directions = (dimensions - 1) * (1 - ratio) ** 2 / ratio
    (a, b), both = along, gap * (1 / along[0] + 1 / along[1])
    return 0.5 * (directions + (a - b) ** 2 / (a * b) + both)


def best_noise(labels: TwoLabels, budget: float) -> Noise:
    """Return the noise of least divergence that has a given power, `budget`, P > 0.

    The four variances of the paper's optimum, whose covariances are (λ1 - λ2)·Δg·Δgᵀ/‖Δg‖² + λ2·I.
    In the logarithms of the total variances the problem is convex (a geometric program), and two of
    them follow from the others: at the optimum the whole budget is spent, and across the gap only
    the gradients that vary less get noise, at most so much that both vary alike (if both had some,
    scaling all variances across down would change no divergence and save power). What is left are
    two searches in one dimension each. There is never more variance across the gap than along it.
    """
    # In units of the gap.
    u, v = (max(variance / labels.gap, _LEAST) for variance in labels.variances)
    p0, p1 = labels.shares
    whole = budget / labels.gap + p0 * u + p1 * v
    quieter = 0 if u <= v else 1
    least, most = sorted((u, v))
    spent_across = labels.shares[quieter] * (labels.dimensions - 1)

    def across(level: float) -> tuple[float, float]:
        return (level, most) if quieter == 0 else (most, level)

    def along(level: float) -> tuple[float, float]:
        """Share what is left between the two labels."""
        left = whole - spent_across * (level - least)
        c, e = across(level)

        def pair(a: float) -> tuple[float, float]:
            return a, max((left - p0 * a) / p1, e)

        # What label 0 can have if label 1 has no more than it must.
        a = _best_between(
            lambda a: _of_total(labels.dimensions, 1.0, pair(a), (c, e)), c, (left - p1 * e) / p0
        )
        return pair(a)

    # Noise across the gap comes with as much along it.
    reachable = least + budget / labels.gap / (labels.shares[quieter] * labels.dimensions)
    level = _best_between(
        lambda level: _of_total(labels.dimensions, 1.0, along(level), across(level)),
        least,
        min(most, reachable),
    )
    (a, b), (c, e) = along(level), across(level)
    scale = labels.gap
    return Noise(
        (max(0.0, a - u) * scale, max(0.0, b - v) * scale),
        (max(0.0, c - u) * scale, max(0.0, e - v) * scale),
    )


def _best_between(loss: Callable[[float], float], low: float, high: float) -> float:
    """Return where between two positive numbers a loss with one valley is least."""
    if high <= low:
        return low
    # Its import takes a third of a second, in every process, for noise that few runs ask for.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda x: loss(math.exp(x)),
        bounds=(math.log(low), math.log(high)),
        method="bounded",
        options={"xatol": _TOLERANCE},
    )
    # The search comes close to the ends, and never there.
    return min((low, high, min(max(math.exp(found.x), low), high)), key=loss)


def shared_noise(
    means: torch.Tensor, variance: float, budget: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best noise among those that are the same for all of several labels.

    The paper is about two labels. Ours, for more: one covariance C for all, the variance v of the
    gradients taken to be the same too. A pair's divergences are then Δgᵀ(C + v·I)⁻¹Δg together, and
    all pairs' the sum of s_i / (λ_i + v), where the s_i are the eigenvalues of the sum of Δg·Δgᵀ
    over all pairs, and the λ_i are those of C in the same directions. It is least where λ_i + v is
    proportional to √s_i, as far as λ_i ≥ 0 allows. For two labels that are equally frequent and
    vary alike it is the paper's optimum.

    `means`, float64, shape (labels, d), are the mean gradient of each label, not all the same;
    `variance` is v, in each dimension; `budget` is P > 0, the trace of C.

    Returns
    -------
    tensor of float64, shape (directions, d); tensor of float64, shape (directions,)
        Orthonormal directions and the variance of the noise in each; there is none in others.
    """
    centred = means - means.mean(dim=0)
    # The sum of Δg·Δgᵀ over all pairs is the number of labels times that of these.
    _, roots, directions = torch.linalg.svd(centred, full_matrices=False)
    # The last direction of centred means is made of rounding.
    roots = roots[roots > roots[0] * 1e-9]
    # Water poured over steps: directions come in falling order of s_i.
    counts = torch.arange(1, len(roots) + 1, dtype=roots.dtype)
    heights = (budget + counts * variance) / roots.cumsum(dim=0)
    used = int(counts[heights * roots > variance][-1])
    variances = heights[used - 1] * roots[:used] - variance
    return directions[:used], variances
