"""How the gradient of a step is kept: each tensor for itself, in more bytes or in fewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch

Gradients = dict[str, torch.Tensor]
"""One tensor for each parameter of a segment, by the parameter's name."""

Codec = Literal["float32", "float16", "int8"]
"""How a gradient is kept: as it is, in half precision, or as 8-bit multiples of a step that each
tensor has of its own."""

CODECS: tuple[str, ...] = get_args(Codec)

_LARGEST_INT8 = 127


def encode(gradients: Mapping[str, torch.Tensor], codec: Codec) -> dict[str, torch.Tensor]:
    """Return the tensors of one step as they are kept; copies."""
    encoded = {}
    for name, gradient in gradients.items():
        values = gradient.detach().cpu()
        if codec == "int8":
            scale = values.abs().max() / _LARGEST_INT8 if values.numel() else torch.tensor(0.0)
            # All zero, or so small that the step is: nothing is left of it.
            steps = (values / scale).round() if scale > 0 else torch.zeros_like(values)
            encoded[f"scale/{name}"] = scale
            encoded[f"int8/{name}"] = steps.clamp(-_LARGEST_INT8, _LARGEST_INT8).to(torch.int8)
        else:
            kept = torch.float16 if codec == "float16" else torch.float32
            encoded[f"value/{name}"] = values.to(kept, copy=True)
    return encoded


def decode(encoded: Mapping[str, torch.Tensor]) -> Gradients:
    """Return what `encode` wrote, as float32 and copies."""
    gradients = {}
    for key, tensor in encoded.items():
        kind, _, name = key.partition("/")
        if kind == "value":
            gradients[name] = tensor.to(torch.float32, copy=True)
        elif kind == "int8":
            gradients[name] = tensor.to(torch.float32) * encoded[f"scale/{name}"]
    return gradients
