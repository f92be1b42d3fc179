"""One-shot projection of gradient caches, as the authors' own program does it.

"Tackling Sequential Entanglement in Split Unlearning" (MIPR 2025). Every batch with a forgotten
sample counts as forgotten as a whole. Their gradients, each cut to norm 1, are weighed over the
steps and added up; something is projected out of the sum; and the weights take one step along it.
Where the abstract and what the program does leave a choice open, the docstrings say which it is.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from split_unlearning.unlearning.gradient_projection.codec import Gradients

Variant = Literal["none", "raw", "pca", "gs", "gs-noproj", "pca-gs"]
"""What is projected out of the sum G of the forget gradients: nothing; each of them in turn; their
first principal component; the first vector of their Gram-Schmidt basis; nothing, and G becomes the
sum of that basis; their first two principal components."""

VARIANTS: tuple[str, ...] = get_args(Variant)

Weighting = Literal["U", "decreasing", "increasing", "none"]
"""How forget gradients weigh over the steps, from the first to the last: 1, less, 1; 1 and less;
less and 1; 1."""

WEIGHTINGS: tuple[str, ...] = get_args(Weighting)

_LARGEST_GRADIENT = 1.0
_LARGEST_STEP = 5.0
_PARALLEL = 1e-6


def step_weights(
    weighting: Weighting, steps: int, devaluation: float = 0.25, edge_boost: float = 4.0
) -> torch.Tensor:
    """Return the weight of each forget gradient, in the order of the steps, shape (steps,).

    The shape of a weighting is made of straight lines, `devaluation` is its least weight, and the
    first and the last step weigh `edge_boost` times more (our reading of an edge).
    """
    place = torch.linspace(0, 1, steps)
    falls = {
        "U": 1 - (2 * place - 1).abs(),
        "decreasing": place,
        "increasing": 1 - place,
        "none": torch.zeros(steps),
    }
    weights = 1 - (1 - devaluation) * falls[weighting]
    for edge in {0, steps - 1} if steps else ():
        weights[edge] *= edge_boost
    return weights


def clipped(gradient: torch.Tensor) -> torch.Tensor:
    """Return a gradient cut to norm 1."""
    return _cut(gradient, _LARGEST_GRADIENT)


def excise(forgotten: torch.Tensor, weights: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Return what is left of the weighted sum of the forget gradients, shape (d,).

    `forgotten`, float32, shape (n, d), are the forget gradients of one weight tensor, in the order
    of the steps; the weights, float32, shape (n,), are from `step_weights`.
    """
    total = weights @ forgotten
    if variant == "gs-noproj":
        return orthonormal(forgotten).sum(dim=0)
    if variant == "raw":
        for gradient in forgotten:
            total = total - _along(total, gradient)
        return total
    for direction in _directions(forgotten, variant):
        total = total - _along(total, direction)
    return total


def _directions(forgotten: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Return the orthonormal directions that are projected out, one a row."""
    if variant == "gs":
        return orthonormal(forgotten)[:1]
    components = {"pca": 1, "pca-gs": 2}.get(variant, 0)
    if not components:
        return forgotten[:0]
    return principal(forgotten, components)


def principal(vectors: torch.Tensor, components: int) -> torch.Tensor:
    """Return the first principal components of some vectors, one a row, orthonormal.

    Of the centred vectors, as is usual; fewer where they span less.
    """
    centred = vectors - vectors.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    spanned: torch.Tensor = directions[sizes > _PARALLEL * vectors.norm()]
    return spanned[:components]


def orthonormal(vectors: torch.Tensor) -> torch.Tensor:
    """Return the Gram-Schmidt basis of some vectors, one a row; what adds nothing new is left out.

    Projected twice, as float32 needs where vectors are nearly parallel.
    """
    basis = vectors[:0]
    for vector in vectors:
        left = vector
        for _ in range(2):
            left = left - basis.T @ (basis @ left)
        size = left.norm()
        if size > _PARALLEL * vector.norm():
            basis = torch.cat([basis, (left / size)[None]])
    return basis


def step_along(
    gradients: list[Gradients],
    learning_rate: float,
    variant: Variant,
    weighting: Weighting,
    devaluation: float,
    edge_boost: float,
) -> Gradients:
    """Return the one step of the method, of each weight tensor, of norm 5 at most.

    `gradients` are those of the steps with a forgotten sample, in order; they are held in memory
    together, as the decompositions need them. Of nothing, nothing is returned.
    """
    if not gradients:
        return {}
    weights = step_weights(weighting, len(gradients), devaluation, edge_boost)
    moved = {}
    for name, first in gradients[0].items():
        stacked = torch.stack([clipped(one[name]).flatten() for one in gradients])
        step = learning_rate * excise(stacked, weights.to(stacked.device), variant)
        moved[name] = _cut(step, _LARGEST_STEP).reshape(first.shape)
    return moved


def _cut(vector: torch.Tensor, norm: float) -> torch.Tensor:
    """Return a vector cut to a norm."""
    cut: torch.Tensor = vector * (norm / vector.norm().clamp(min=norm))
    return cut


def _along(vector: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return the part of a vector that lies along a direction; nothing along nothing."""
    squared = direction @ direction
    return (vector @ direction / squared) * direction if squared > 0 else torch.zeros_like(vector)
