"""Random draws of layers: PyTorch has one generator for all threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# A model or a step may seed a part of its own inside a seeded block.
_GLOBAL_GENERATOR = threading.RLock()

_DRAW_NOTHING = frozenset(
    {
        nn.AdaptiveAvgPool2d,
        nn.AvgPool2d,
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.Conv2d,
        nn.Flatten,
        nn.GroupNorm,
        nn.Identity,
        nn.LayerNorm,
        nn.Linear,
        nn.MaxPool2d,
        nn.ReLU,
        nn.Sequential,
    }
)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's global CPU generator seeded, and restore the generator afterwards.

    Layers draw their first weights, and dropout its masks, from that generator. A lock keeps
    threads of one process from drawing each other's numbers.
    """
    with _GLOBAL_GENERATOR:
        before = torch.default_generator.get_state()
        # Not torch.manual_seed: before CUDA is in use it formats a stack trace at every call.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)


def computed_seeded(segment: nn.Sequential, x: torch.Tensor, seed: int) -> torch.Tensor:
    """Pass a batch of shape (n, ...) through a segment whose layers draw as in a block of `seeded`.

    Threads wait for each other only in layers that may draw, which are all but the known layers
    that draw nothing. A GPU has one generator and one queue: there the whole segment is one block.
    """
    if x.is_cuda:
        with seeded(seed):
            return segment(x)  # type: ignore[no-any-return]
    state = torch.Generator().manual_seed(seed).get_state()
    for layer in segment:
        if all(type(part) in _DRAW_NOTHING for part in layer.modules()):
            x = layer(x)
            continue
        with seeded(seed):
            torch.default_generator.set_state(state)
            x = layer(x)
            state = torch.default_generator.get_state()
    return x
