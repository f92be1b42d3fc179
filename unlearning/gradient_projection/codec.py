"""How the gradient of a step is kept: each tensor for itself, in more bytes or in fewer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.unlearning.exactness import mixed

Gradients = dict[str, torch.Tensor]
"""One tensor for each parameter of a segment, by the parameter's name."""

Codec = Literal["float32", "float16", "int8", "sketch"]
"""How a gradient is kept: as it is, in half precision, as 8-bit multiples of a step that each
tensor has of its own, or as random sums.

A *sketch* adds the values of a tensor up, each with a random sign, into an eighth as many sums; its
signs and places are the same in every step, so that sums of gradients are kept as sums of sketches.
What is read from it is right on average over the draw and far off in each value: it is good for
inner products and for what is added up over many steps, and not to rebuild weights from.
"""

CODECS: tuple[str, ...] = get_args(Codec)

_LARGEST_INT8 = 127

# Of a tensor with so many values, or fewer, each is a sum of its own.
_TOO_SMALL_TO_SKETCH = 64
_VALUES_IN_A_SUM = 8


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
        elif codec == "sketch":
            places, signs, sums = _sketch(values.numel())
            flat = signs * values.flatten().to(torch.float32)
            encoded[f"sketch/{name}"] = torch.zeros(sums).index_add_(0, places, flat)
            encoded[f"shape/{name}"] = torch.tensor(values.shape, dtype=torch.int64)
        else:
            kept = torch.float16 if codec == "float16" else torch.float32
            encoded[f"value/{name}"] = values.to(kept, copy=True)
    return encoded


def decode(encoded: Mapping[str, torch.Tensor]) -> Gradients:
    """Return what `encode` wrote, as float32; what was float32 is itself, and not to be changed."""
    gradients = {}
    for key, tensor in encoded.items():
        kind, _, name = key.partition("/")
        if kind == "value":
            gradients[name] = tensor.to(torch.float32)
        elif kind == "int8":
            gradients[name] = tensor.to(torch.float32) * encoded[f"scale/{name}"]
        elif kind == "sketch":
            shape = encoded[f"shape/{name}"].tolist()
            places, signs, _ = _sketch(math.prod(shape))
            gradients[name] = (signs * tensor[places]).reshape(shape)
    return gradients


@lru_cache(maxsize=64)
def _sketch(values: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return which sum each of so many values goes into, with which sign, and how many sums."""
    sums = values
    if values > _TOO_SMALL_TO_SKETCH:
        sums = -(-values // _VALUES_IN_A_SUM)
    drawn = mixed(np.arange(values, dtype=np.int64), derive_seed(values, "sketch"))
    places = np.empty(values, dtype=np.int64)
    # As many values in each sum, or one more.
    places[np.argsort(drawn, kind="stable")] = np.arange(values) % max(1, sums)
    signs = 1.0 - 2.0 * (drawn & np.uint64(1)).astype(np.float32)
    return torch.from_numpy(places), torch.from_numpy(signs), sums
