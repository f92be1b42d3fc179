"""Rewriting a gradient cache so that it holds nothing of what was forgotten, for later requests.

The projection ends at w' = w_T + u, and u is what it added and took away: with c_t of
`unlearning.gradient_projection.sequential.coefficients` and β a_t of `project` beside it,

    w' = w_0 - Σ_t (c_t + β a_t) r_t.

So w' is itself the end of a training: that of the retained shares r_t, in which each step moves
the weights by β a_t r_t more, at once and past the momentum. That is what the cache is made to say.
Each g_t becomes r_t, each β a_t is added to its *shift*, ids of forgotten samples go, and weights
that are kept on the way become those of the rewritten training.

A later request takes its shares at these weights, and counts a share as c_t of what was learned
alone: counting the shift as well, which is consistent on paper, multiplies what is wrong with a
share taken at other weights by a_t, which is large where r_t is small, and destroys the network
(docs/gradient-projection.md has figures). What a shift of r_t = r'_t + f'_t moved along f'_t is
then in no cache; weights kept every few steps, each rewritten as it has to be, correct for it. And
of a share no more is taken than the gradient holds of it.

What cannot be had: r_t was taken at weights that had seen what was forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.codec import Gradients
from split_unlearning.unlearning.gradient_projection.steps import Step


class Rewriting:
    """Rewrites a cache while a projection goes through it; memory does not grow with its steps.

    The cache is changed in place. `momentum` is μ of the training.

    `velocity` says, by tensor, by how much momentum differs, after the last step that was taken,
    from what it was; given for before the first step, by default nothing.
    """

    def __init__(
        self, cache: GradientCache, momentum: float, velocity: Gradients | None = None
    ) -> None:
        self.velocity = dict(velocity or {})
        self._cache, self._momentum = cache, momentum
        self._shifts: dict[int, dict[str, float]] = {}

    def come_to(self, step: Step, removed: Gradients, coefficient: float) -> None:
        """Keep the weights before a step as they are to be, if they are kept.

        `removed` is u before the step, `coefficient` its c_t.
        """
        if not self._cache.has_weights_before(step.number):
            return
        _, weights, momentum = self._cache.weights_before(step.number)
        if not momentum:
            # Here a training began anew.
            self.velocity = {}
        # u counts what a gradient has done by the end; what momentum does from here on is to come.
        to_come = self._momentum * coefficient
        for name, u in removed.items():
            weights[name] = weights[name] + u.cpu()
            if name in self.velocity:
                weights[name] += to_come * self.velocity[name].cpu()
                momentum[name] = momentum[name] + self.velocity[name].cpu()
        self._cache.keep_weights(step.number, weights, momentum)

    def take(
        self,
        step: Step,
        retained: Gradients | None,
        forgotten: Gradients | None,
        moved: Mapping[str, torch.Tensor | float],
    ) -> None:
        """Rewrite a step, given its shares r_t and f_t, None for zero.

        A step of no retained share is left to `leave_out`. `moved` is β a_t, as `project` returns
        it, less what was added of r_t in another's stead.
        """
        before = self._cache.shifts(step.number)
        if moved or before:
            names = forgotten or retained or before
            self._shifts[step.number] = {
                name: before.get(name, 0.0) + float(moved.get(name, 0.0)) for name in names
            }
        if retained is not None and forgotten is not None:
            self._cache.replace(step.number, retained)
        if not self._momentum:
            return
        for name in self.velocity:
            self.velocity[name] = self._momentum * self.velocity[name]
        for name, share in (forgotten or {}).items():
            was = self.velocity.get(name)
            self.velocity[name] = -share if was is None else was - share

    def finish(self) -> None:
        """Write what is not written yet, once all steps are taken."""
        self._cache.describe({}, self._shifts)
        self._shifts = {}


def leave_out(
    cache: GradientCache, counts: Mapping[int, int], ids: Ids, *, whole_batches: bool
) -> None:
    """Remove the steps that are forgotten as a whole, and every id of a forgotten sample.

    Called after `Rewriting` has taken the forgotten shares out of mixed batches. `counts` says how
    many samples of a step are forgotten, `ids` which. With `whole_batches` a batch with a forgotten
    sample was forgotten as a whole (``shares=whole``); weights on the way, which that does not
    need, are then removed.
    """
    known = {}
    for step in cache.steps:
        count = counts.get(step.number, 0)
        if not count:
            continue
        gone = step.samples if whole_batches else count
        left = step.ids[~np.isin(step.ids, ids)] if gone < step.samples else step.ids[:0]
        if gone == step.samples and cache.holds(step.number):
            held = cache.gradients(step.number)
            cache.replace(step.number, {name: torch.zeros_like(one) for name, one in held.items()})
        known[step.number] = replace(step, ids=left, removed=step.removed + gone)
    cache.describe(known, {})
    if whole_batches:
        cache.forget_weights()
