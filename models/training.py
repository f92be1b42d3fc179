"""Training of a segment: the settings that both sides of the cut share, and one step."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, get_args

import torch
from torch import nn

from split_unlearning.foundations.options import (
    Option,
    Settings,
    between,
    not_negative,
    one_of,
    positive,
    setting,
)

FloatCodec = Literal["float32", "float16", "bfloat16"]
"""The type of a floating-point number while it crosses the cut."""

FLOAT_CODECS: tuple[str, ...] = get_args(FloatCodec)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """What both sides of the cut must agree on to train; the seed is that of all that is drawn."""

    seed: int = 0
    pretrain_epochs: int = setting(not_negative(10, "N, epochs a client trains alone"))
    server_epochs: int = setting(positive(30, "M, epochs of the split-learning phase"))
    batch_size: int = setting(positive(32, "samples a batch"))
    learning_rate: float = setting(positive(0.1, "step size of SGD"))
    momentum: float = setting(between(0.0, "0 <= x < 1", "momentum of SGD"))
    weight_decay: float = setting(not_negative(0.0, "weight decay of SGD"))
    codec: FloatCodec = setting(
        one_of(
            "float32",
            FLOAT_CODECS,
            "what smashed data and gradients are rounded to where they cross the cut",
        )
    )
    threads: int = setting(
        Option(
            1,
            "an integer from 1 to 1024",
            lambda value: 1 <= value <= 1024,
            "threads of each segment; they change the last bits",
        )
    )

    def optimiser(self, *segments: nn.Module) -> torch.optim.SGD:
        """Return a fresh optimiser over the parameters of these segments."""
        parameters = [parameter for segment in segments for parameter in segment.parameters()]
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def fix_kernels(self) -> None:
        """Make this process compute the same bits every time: threads and kernels."""
        torch.set_num_threads(self.threads)
        # CUDA's linear algebra reads this when it starts, and then has deterministic kernels.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # In TF32 a GPU's convolutions would round float32 factors to ten bits.
        torch.backends.cudnn.allow_tf32 = False
        # As torch.use_deterministic_algorithms, without its import of a compiler that takes a
        # second in every process and that nothing here uses.
        torch.set_deterministic_debug_mode("error")


@contextmanager
def kernels_kept() -> Iterator[None]:
    """Compute as in a fresh process, and leave a process's threads, kernels and types as they were.

    Whoever calls may have turned gradients off, or have another default type than float32.
    """
    default = torch.get_default_dtype()
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    mode = torch.get_deterministic_debug_mode()
    try:
        torch.set_default_dtype(torch.float32)
        with torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(default)
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_deterministic_debug_mode(mode)


def warm_up() -> None:
    """Import in a thread what PyTorch imports with the first optimiser of a process.

    The import takes a second, in which a client would otherwise wait for the server to start.
    """
    threading.Thread(target=import_module, args=("torch._dynamo",), daemon=True).start()


def train_batch(
    segment: Callable[[torch.Tensor], torch.Tensor],
    optimiser: torch.optim.Optimizer,
    x: torch.Tensor,
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Take one step on ``loss(segment(x))``.

    If `x` requires a gradient, ``x.grad`` then holds the gradient that goes back through the cut.

    Raises
    ------
    ValueError
        If the loss is not finite.
    """
    optimiser.zero_grad(set_to_none=True)
    finite(loss(segment(x))).backward()
    optimiser.step()


def finite(loss: torch.Tensor) -> torch.Tensor:
    """Return the loss.

    Raises
    ------
    ValueError
        If the loss is not finite: nothing that follows would mean anything.
    """
    if not math.isfinite(loss.item()):
        raise ValueError(
            "training diverged: the loss is not finite; a lower learning-rate may mend it"
        )
    return loss
