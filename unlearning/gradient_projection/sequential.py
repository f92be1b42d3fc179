"""Sequential orthogonal replay: what forgotten samples left in the weights, step by step.

Training is w_t = w_{t-1} - η g_t, and each g_t is a forgotten share f_t and a retained share r_t.
Without the forgotten samples the weights would have drifted apart from these by δ_t, which obeys
δ_t ≈ (I - η H_r) δ_{t-1} + η f_t. The recursion in `project` follows it through the cached steps;
projecting off r_t stands in for the contraction by the Hessian H_r of the retained loss, which
nobody has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.codec import Gradients
from split_unlearning.unlearning.gradient_projection.rewriting import Rewriting
from split_unlearning.unlearning.gradient_projection.rounding import nearest
from split_unlearning.unlearning.gradient_projection.steps import Step

Shares = Literal["recompute", "whole"]
"""How a mixed batch's gradient is divided: `recompute` takes the forgotten samples' share of it
again, at the weights of that step; `whole` counts all of it as forgotten."""

SHARES: tuple[str, ...] = get_args(Shares)

LEAST_PURE = 0.5
"""With `whole` shares, at least this part of the steps has to be without any forgotten sample: on
fewer the projection has too little to stand on, and collapses."""

_NOTHING = 1e-20

# So many numbers, and their product, stay in a processor's cache.
_INNER = 1 << 16


def project(
    removed: Gradients,
    retained: Mapping[str, torch.Tensor] | None,
    forgotten: Mapping[str, torch.Tensor] | None,
    coefficient: float,
    beta: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Take one step of the recursion, in place, each tensor for itself.

    u <- u - β (<r_t, u> / ||r_t||²) r_t, and then u <- u + c_t f_t.

    `removed` is u, float32, what is to be added to the weights that were learned; `retained` and
    `forgotten` are r_t and f_t, None for zero. A gradient that holds forgotten samples is never a
    retained one: projecting along it would keep what is to go. The coefficient is c_t, from
    `coefficients`.

    Returns
    -------
    dict of str to tensor of float32, shape ()
        β a_t of each tensor that was projected, with a_t = <r_t, u> / ||r_t||².
    """
    moved = {}
    for name, u in removed.items():
        if retained is not None:
            r = retained[name]
            squared, along = _inner(r, r, u)
            if squared > _NOTHING:
                moved[name] = (beta * along / squared).to(u.dtype)
                u.addcmul_(r, -moved[name])
        if forgotten is not None:
            u.add_(forgotten[name], alpha=coefficient)
    return moved


def _inner(left: torch.Tensor, *others: torch.Tensor) -> list[torch.Tensor]:
    """Return the inner products of a tensor with others, in float64, shape ().

    Piece by piece on a CPU: products of millions of numbers, which are memory that is new every
    time, take longer than all else in a step; and what is added up in float32 stays small.
    """
    size = _INNER if left.device.type == "cpu" else max(1, left.numel())
    pieces = zip(*(one.flatten().split(size) for one in (left, *others)), strict=True)
    sums = [[(first * one).sum() for one in rest] for first, *rest in pieces]
    return [torch.stack(column).sum(dtype=torch.float64) for column in zip(*sums, strict=True)]


def coefficients(learning_rates: Sequence[float], momentum: float) -> NDArray[np.float64]:
    """Return c_t = Σ_{s>=t} η_s μ^(s-t), what a step's gradient has moved the last weights by.

    So that w_0 - Σ c_t g_t = w_T; the learning rates η are those of the steps of one segment, in
    order.
    """
    moved = np.zeros(len(learning_rates) + 1)
    for place in reversed(range(len(learning_rates))):
        moved[place] = learning_rates[place] + momentum * moved[place + 1]
    return moved[:-1]


def coefficients_of(steps: Sequence[Step], momentum: float) -> NDArray[np.float64]:
    """Return c_t of the steps of one segment, in order; momentum ends with each stage."""
    stages = [list(stage) for _, stage in groupby(steps, key=lambda step: step.stage)]
    moved = [coefficients([step.learning_rate for step in stage], momentum) for stage in stages]
    return np.concatenate([np.empty(0), *moved])


class Replay:
    """The weights of a training, rebuilt step by step from its gradients as PyTorch's SGD did.

    Weights and momentum are those before the first step, and are copied; no momentum where there
    was none yet. `factor` is μ.
    """

    def __init__(self, weights: Gradients, momentum: Gradients, factor: float) -> None:
        self.weights = {name: tensor.clone() for name, tensor in weights.items()}
        self._momentum = {name: tensor.clone() for name, tensor in momentum.items()}
        self._factor = factor

    def take(
        self,
        gradients: Mapping[str, torch.Tensor],
        learning_rate: float,
        shifts: Mapping[str, float] | None = None,
    ) -> None:
        """Take one step; shifts as in `GradientCache.shifts`."""
        for name, weight in self.weights.items():
            step = gradients[name]
            if self._factor:
                if name in self._momentum:
                    self._momentum[name].mul_(self._factor).add_(step)
                else:
                    self._momentum[name] = step.clone()
                step = self._momentum[name]
            weight.add_(step, alpha=-learning_rate)
            if shifts:
                weight.add_(gradients[name], alpha=-shifts[name])


class SequentialProjection:
    """The recursion over the steps of one cache; memory does not grow with their number.

    Steps without a forgotten sample, and batches of nothing else, need no client: `until` takes
    them. With recomputed shares a mixed batch needs its forgotten share: it is computed with the
    weights of that step, `weights`, and given to `take`.

    `counts` are n_f, how many samples of a step are forgotten; steps with none may be missing.
    `coefficient` is c of each step, by its number, and `removed` u so far, changed in place.
    `steps` are those of the cache to go through, in order, by default all. `rewriting` makes
    another cache of it on the way. `stand_ins` say, by step, as what multiple of its gradient that
    gradient stands for forgotten shares of earlier steps, and of later ones, that nobody has any
    more (`stand_ins_of`). `evaluations` counts the samples whose gradient was taken again.
    """

    def __init__(
        self,
        cache: GradientCache,
        counts: Mapping[int, int],
        coefficient: Mapping[int, float],
        removed: Gradients,
        *,
        steps: Sequence[Step] | None = None,
        shares: Shares = "recompute",
        beta: float = 1.0,
        momentum: float = 0.0,
        rewriting: Rewriting | None = None,
        stand_ins: Mapping[int, tuple[float, float]] | None = None,
    ) -> None:
        self._rewriting, self._stand_ins = rewriting, dict(stand_ins or {})
        self.removed = removed
        self.evaluations = 0
        self._cache, self._counts, self._coefficient = cache, counts, coefficient
        self._shares, self._beta, self._momentum = shares, beta, momentum
        self._steps = list(cache.steps if steps is None else steps)
        self._by_number = {step.number: step for step in self._steps}
        self._replay: Replay | None = None
        self._device = next(iter(removed.values())).device
        self._read: tuple[int, Gradients] = (-1, {})
        self._carrying = {
            step.number: counts[step.number] / step.batch_size
            for step in cache.steps
            if counts.get(step.number, 0) and cache.holds(step.number)
        }
        self._rounded = sorted(self._carrying)
        mixed = [step.number for step in self._steps if self.is_mixed(step)]
        # Weights are rebuilt from the last ones that are kept, up to the last step that needs them.
        replayed_from = [cache.weights_before(number)[0] for number in mixed[:1]]
        self._replayed_steps = range(replayed_from[0], mixed[-1] + 1) if mixed else range(0)
        # While there is nothing to project, steps matter only to rebuild weights.
        idle = not any(tensor.any() for tensor in removed.values())
        meant = {*counts, *self._stand_ins}
        begins = [step.number for step in self._steps if not idle or step.number in meant][:1]
        begin = min(replayed_from + begins, default=math.inf)
        self._next = sum(step.number < begin for step in self._steps)

    def until(self, number: int) -> None:
        """Take all steps before one.

        Raises
        ------
        ValueError
            If one of them is mixed, and its share has to be recomputed.
        """
        while self._next < len(self._steps) and self._steps[self._next].number < number:
            step = self._steps[self._next]
            if self.is_mixed(step):
                raise ValueError(
                    f"step {step.number} mixes forgotten and retained samples, and nobody told its "
                    "forgotten share"
                )
            self._pass(step, self._divided(step))

    def finish(self) -> Gradients:
        """Take all steps that are left, and return u; raises as `until`."""
        if self._steps:
            self.until(self._steps[-1].number + 1)
        return self.removed

    def weights(self, number: int) -> Gradients:
        """Return the weights before a step, once all steps before it are taken."""
        self.until(number)
        return self._replayed(number).weights

    def take(self, number: int, forgotten: Gradients) -> None:
        """Take a mixed step, given its forgotten share f_t.

        f_t is the sum of the forgotten samples' gradients over the size of the whole batch.

        Raises
        ------
        ValueError
            If that step has no such share, or it is not its turn.
        """
        self.until(number)
        step = self._steps[self._next] if self._next < len(self._steps) else None
        if step is None or step.number != number or not self.is_mixed(step):
            raise ValueError(f"nobody asked for the forgotten share of step {number}")
        gradients = self._gradients(number)
        if self._cache.shifts(number):
            forgotten = _contained(forgotten, gradients)
        retained = {name: gradients[name] - forgotten[name] for name in gradients}
        self.evaluations += self._counts[number]
        self._pass(step, (retained, forgotten))

    def mixed(self, number: int, samples: int) -> int:
        """Return the batch size of a mixed step of which so many samples are forgotten.

        Raises
        ------
        ValueError
            If there is none.
        """
        step = self._by_number.get(number)
        if step is None or not self.is_mixed(step) or self._counts[number] != samples:
            raise ValueError(f"nobody asked for the share of {samples} samples of step {number}")
        return step.batch_size

    def is_mixed(self, step: Step) -> bool:
        """Say whether a step's forgotten share has to be told to `take`."""
        count = self._counts.get(step.number, 0)
        return self._shares == "recompute" and 0 < count < step.samples

    def _divided(self, step: Step) -> tuple[Gradients | None, Gradients | None]:
        """Return the retained and the forgotten share of a step that needs nobody."""
        count = self._counts.get(step.number, 0)
        if self._cache.holds(step.number):
            gradients = self._gradients(step.number)
            return (None, gradients) if count else (gradients, None)
        stand_in = nearest(step.number, self._rounded) if count else None
        if stand_in is None:
            return None, None
        scale = count / step.batch_size / self._carrying[stand_in]
        rounded = self._gradients(stand_in)
        return None, {name: scale * tensor for name, tensor in rounded.items()}

    def _pass(self, step: Step, divided: tuple[Gradients | None, Gradients | None]) -> None:
        """Project, and go on to the next step."""
        if step.number in self._replayed_steps:
            replay = self._replayed(step.number)
            shifts = self._cache.shifts(step.number)
            replay.take(self._gradients(step.number), step.learning_rate, shifts)
        self._next += 1
        c = self._coefficient[step.number]
        if self._rewriting is not None:
            self._rewriting.come_to(step, self.removed, c)
        before, after = self._stand_ins.get(step.number, (0.0, 0.0))
        self._stand_in(step, before)
        moved: dict[str, torch.Tensor | float] = {**project(self.removed, *divided, c, self._beta)}
        self._stand_in(step, after)
        if before or after:
            moved = {name: moved.get(name, 0.0) - (before + after) for name in self.removed}
        if self._rewriting is not None:
            self._rewriting.take(step, *divided, moved)

    def _stand_in(self, step: Step, amount: float) -> None:
        """Add a multiple of a step's gradient to u, for shares that are lost."""
        if amount:
            for name, gradient in self._gradients(step.number).items():
                self.removed[name] += amount * gradient

    def _replayed(self, number: int) -> Replay:
        """Return the weights before a step; those that are kept correct what was rebuilt."""
        if self._replay is None or self._cache.has_weights_before(number):
            _, weights, momentum = self._cache.weights_before(number)
            self._replay = Replay(self._here(weights), self._here(momentum), self._momentum)
        return self._replay

    def _gradients(self, number: int) -> Gradients:
        if self._read[0] != number:
            self._read = (number, self._here(self._cache.gradients(number)))
        return self._read[1]

    def _here(self, tensors: Gradients) -> Gradients:
        return {name: tensor.to(self._device) for name, tensor in tensors.items()}


def stand_ins_of(
    lost: Mapping[int, float], cached: Sequence[int]
) -> dict[int, tuple[float, float]]:
    """Round lost forgotten shares to the gradients that are left of other steps.

    `lost` has, by step whose gradient is lost, c_t times the part of its batch that is forgotten;
    `cached` are the steps whose gradients are left, rising.

    Returns
    -------
    dict of int to (float, float)
        By step that stands in: what it adds up to for lost steps before it, and for those after it.
    """
    stand_ins: dict[int, tuple[float, float]] = {}
    for step, amount in lost.items():
        place = nearest(step, cached)
        if place is not None:
            before, after = stand_ins.get(place, (0.0, 0.0))
            later = amount if step > place else 0.0
            stand_ins[place] = (before + amount - later, after + later)
    return stand_ins


def _contained(shares: Gradients, whole: Mapping[str, torch.Tensor]) -> Gradients:
    """Return of each share the part that its gradient holds: its least-squares fit, 0 to 1 of it.

    In a rewritten cache a share is taken at weights that the gradient was not taken at, and where
    the loss may be many times as large. The multiple a of a share f that is nearest to the gradient
    g, a = <f, g> / ||f||², is never longer than g; along it, nothing of f is left in g. A share of
    which g holds nothing, or the opposite, is none, and no share grows.
    """
    held = {}
    for name, share in shares.items():
        squared = torch.sum(share * share)
        fit = torch.sum(share * whole[name]) / squared if squared > _NOTHING else squared
        held[name] = fit.clamp(0.0, 1.0) * share
    return held
