"""How floating-point numbers cross the cut: as they are, or in half the bytes.

Numbers are rounded where they leave and are float32 again where they arrive: both sides compute as
ever, with what has arrived. A rounded row depends on nothing but itself, so that chunks and batches
of any size carry the same.

``bfloat16`` keeps float32's range and 8 significant bits. ``float16`` keeps 11, but its range ends
at 65,504 and its last bits go below 6e-5, where the gradients of a mean over a batch are: so each
row travels multiplied by the power of two that puts its largest number between a half and one, and
that power beside it, a byte a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch

from split_unlearning.transport.message import Array

FloatCodec = Literal["float32", "float16", "bfloat16"]
"""What a floating-point number is while it crosses."""

FLOAT_CODECS: tuple[str, ...] = get_args(FloatCodec)

_BFLOAT16 = "/bfloat16"
_FLOAT16 = "/float16"
_EXPONENTS = "/exponents"

# Two to any power from minus this to this is a normal float32.
_MOST = 126
_BIAS, _FRACTION_BITS = 127, 23


def pack(tensors: Mapping[str, torch.Tensor], codec: FloatCodec) -> dict[str, torch.Tensor]:
    """Return tensors as they travel.

    Parameters
    ----------
    tensors : mapping of str to tensor
        Those of float32 with rows, of two dimensions or more, are rounded; others stay.
    codec : "float32", "float16" or "bfloat16"
        What to.

    Returns
    -------
    dict of str to tensor
        Under other names, where something was rounded; `unpack` reads them.
    """
    if codec == "float32":
        return dict(tensors)
    packed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype is not torch.float32 or tensor.ndim < 2:
            packed[name] = tensor
        elif codec == "bfloat16":
            packed[name + _BFLOAT16] = tensor.to(torch.bfloat16)
        else:
            exponents = _exponents(tensor)
            packed[name + _FLOAT16] = _scaled(tensor, -exponents).to(torch.float16)
            packed[name + _EXPONENTS] = exponents.to(torch.int8)
    return packed


def unpack(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read what `pack` returned, whatever the codec; what was rounded is float32 again.

    Raises
    ------
    ValueError
        If a tensor is not of the type that its name says, or its exponents do not fit.
    """
    unpacked: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_BFLOAT16):
            _require(name, tensor, torch.bfloat16)
            unpacked[name.removesuffix(_BFLOAT16)] = tensor.to(torch.float32)
        elif name.endswith(_FLOAT16):
            _require(name, tensor, torch.float16)
            plain = name.removesuffix(_FLOAT16)
            exponents = tensors.get(plain + _EXPONENTS)
            if exponents is None or exponents.shape != tensor.shape[:1]:
                raise ValueError(f"tensor {name!r} comes with one exponent a row, or not at all")
            _require(plain + _EXPONENTS, exponents, torch.int8)
            if len(exponents) and int(exponents.min()) < -_MOST:
                raise ValueError(f"tensor {plain + _EXPONENTS!r} holds -127 or -128")
            unpacked[plain] = _scaled(tensor.to(torch.float32), exponents.to(torch.int32))
        elif not name.endswith(_EXPONENTS):
            unpacked[name] = tensor
    return unpacked


def pack_arrays(arrays: Mapping[str, Array], codec: FloatCodec) -> dict[str, Array]:
    """Return arrays as they travel in a message; as `pack`.

    NumPy has no bfloat16: its bits travel as int16.
    """
    if codec == "float32":
        return dict(arrays)
    packed = pack({name: torch.from_numpy(array) for name, array in arrays.items()}, codec)
    return {
        name: (tensor.view(torch.int16) if name.endswith(_BFLOAT16) else tensor).numpy()
        for name, tensor in packed.items()
    }


def unpack_arrays(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Read what `pack_arrays` returned, whatever the codec; raises as `unpack`."""
    if not any(name.endswith((_BFLOAT16, _FLOAT16)) for name in arrays):
        return dict(arrays)
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    for name in tensors:
        if name.endswith(_BFLOAT16):
            _require(name, tensors[name], torch.int16)
            tensors[name] = tensors[name].view(torch.bfloat16)
    return {name: tensor.numpy() for name, tensor in unpack(tensors).items()}


def _exponents(tensor: torch.Tensor) -> torch.Tensor:
    """Return, for each row, the power of two that its largest number is below; int32, shape (n,).

    0 for a row of zeros, and for one that is not finite, which stays so.
    """
    rows = tensor.flatten(1)
    largest = rows.abs().amax(dim=1) if rows.shape[1] else rows.new_zeros(len(rows))
    exponents = torch.frexp(torch.where(largest.isfinite(), largest, 0)).exponent
    return exponents.clamp(-_MOST, _MOST)


def _scaled(tensor: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose rows are multiplied by two to some powers."""
    # Put together from bits: a power function need not be exact, which torch.ldexp relies on.
    powers = ((exponents + _BIAS) << _FRACTION_BITS).view(torch.float32)
    return tensor * powers.view(-1, *[1] * (tensor.ndim - 1))


def _require(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype is not dtype:
        raise ValueError(f"tensor {name!r} is {tensor.dtype}, not {dtype}")
