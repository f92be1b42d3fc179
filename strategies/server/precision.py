"""How precisely the server segment computes: in float32, or where bfloat16 is faster, in that.

In bfloat16, PyTorch's autocast decides by operation: convolutions and products of matrices take
numbers of 8 significant bits, and what needs more stays in float32. Only the segment's own pass is
so, forward and backward: its weights, its optimiser and every loss are float32, and so is all that
goes in and comes out. Images and kernels lie in memory channels last, which is what such kernels
like best; that changes no value of what is kept, and is not done in float32, whose last bits it
would change. Clients compute in float32: what they hold is too small to gain anything.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.once import once
from split_unlearning.models.devices import name_of
from split_unlearning.models.inputs import Shape
from split_unlearning.models.network import Part
from split_unlearning.models.seeding import computed_seeded, seeded
from split_unlearning.models.split import Model, build_segment, smashed_shape

Precision = Literal["float32", "bfloat16"]
"""What the server segment computes with."""

PRECISIONS: tuple[str, ...] = get_args(Precision)


def laid_out(segment: nn.Sequential, precision: Precision) -> nn.Sequential:
    """Return a segment, the same object, with its weights in memory as a precision wants them."""
    if precision == "float32":
        return segment
    laid: nn.Sequential = segment.to(memory_format=torch.channels_last)
    return laid


def forward(
    segment: nn.Sequential, x: torch.Tensor, precision: Precision, seed: int | None = None
) -> torch.Tensor:
    """Take a batch through a segment from `laid_out`.

    `x` is float32, shape (n, ...), and so is a gradient that comes back to it. The seed is that of
    what layers draw.

    Returns
    -------
    tensor of float32
        Contiguous, if it was computed in bfloat16.
    """
    if precision == "float32":
        return _through(segment, x, seed)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    # No cache of weights that were cast: each is used once in a pass, and one pass of a teacher,
    # which needs no gradient, would leave weights behind that have none.
    with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
        y = _through(segment, x, seed)
    return y.to(torch.float32, memory_format=torch.contiguous_format)


def _through(segment: nn.Sequential, x: torch.Tensor, seed: int | None) -> torch.Tensor:
    return segment(x) if seed is None else computed_seeded(segment, x, seed)


def check_device(precision: Precision, device: torch.device) -> None:
    """Refuse a GPU that has no arithmetic of its own for a precision.

    Raises
    ------
    UserError
        With its name.
    """
    if precision == "float32" or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        allowed = f"float32 (on {name_of(device)})"
        raise refuse("precision", precision, allowed)


# A benchmark checks as many runs as it has, most of which cut the same network alike.
@once(maxsize=32)
def check_computes(
    precision: Precision,
    part: Part,
    model: Model,
    input_shape: Shape,
    num_labels: int,
) -> None:
    """Refuse a precision in which a network cannot be trained, before anything starts.

    The network is known to train in float32.

    Raises
    ------
    UserError
        With what PyTorch says of it.
    """
    if precision == "float32":
        return
    name = model if isinstance(model, str) else model.name
    try:
        segment = laid_out(build_segment(part, model, input_shape, num_labels, seed=0), precision)
        shape = smashed_shape(model, input_shape, num_labels)
        with seeded(0):
            x = torch.rand(2, *shape).requires_grad_()
            y = forward(segment.train(), x, precision)
        y.sum().backward()
    except Exception as error:  # a stranger's layers may raise anything
        reason = " ".join(str(error).split())
        allowed = f"float32 (model={name!r} does not compute in {precision}: {reason})"
        raise refuse("precision", precision, allowed) from error
    if not y.isfinite().all():
        allowed = f"float32 (model={name!r} is not finite in {precision})"
        raise refuse("precision", precision, allowed)
