"""Caches the steps of an optimiser as it takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.steps import Step


class StepRecorder:
    """Puts every step that an optimiser is about to take into a cache.

    It sees what the optimiser sees, and changes nothing of it: training gives the same bits.
    `first` is the number of the next step, `weights_every` says how often the weights are kept on
    the way (0: those before the first step alone), `stage` is as in `Step`.
    """

    def __init__(
        self,
        cache: GradientCache,
        segment: nn.Module,
        optimiser: torch.optim.SGD,
        first: int,
        weights_every: int = 0,
        stage: int = 0,
    ) -> None:
        self._cache, self._segment, self._stage = cache, segment, stage
        self._number, self._first, self._weights_every = first, first, weights_every
        self._batch: tuple[int, int, Ids] | None = None
        optimiser.register_step_pre_hook(self._record)

    def announce(self, client: int, batch_size: int, ids: Ids | None = None) -> None:
        """Say whose batch the next step is about; its samples if they are known."""
        known = np.empty(0, dtype=np.int64) if ids is None else ids
        self._batch = (client, batch_size, known)

    def _record(self, optimiser: torch.optim.Optimizer, *_: Any) -> None:
        assert self._batch is not None, "a step that nobody announced"
        client, batch_size, ids = self._batch
        group = optimiser.param_groups[0]
        named = dict(self._segment.named_parameters())
        passed = self._number - self._first
        if passed == 0 or (self._weights_every and passed % self._weights_every == 0):
            buffers = {
                name: optimiser.state[parameter].get("momentum_buffer")
                for name, parameter in named.items()
                if parameter in optimiser.state
            }
            momentum = {name: one for name, one in buffers.items() if one is not None}
            weights = {name: parameter.detach() for name, parameter in named.items()}
            self._cache.keep_weights(self._number, weights, momentum)
        applied = {}
        for name, parameter in named.items():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if group["weight_decay"]:
                gradient = gradient.add(parameter.detach(), alpha=group["weight_decay"])
            applied[name] = gradient.detach()
        step = Step(self._number, client, batch_size, group["lr"], ids, self._stage)
        self._cache.add(step, applied)
        self._number, self._batch = self._number + 1, None
