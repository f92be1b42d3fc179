"""Floating-point numbers across the cut: as float32, or in half the bytes.

Numbers are rounded by the sender and are float32 again at the receiver. A rounded row depends on
nothing else, so that chunks and batches of any size carry the same numbers.

``bfloat16`` keeps float32's range and 8 significant bits. ``float16`` keeps 11, but its range ends
at 65,504 and it loses bits below 6e-5, where the gradients of a mean over a batch are. So each row
is multiplied by the power of two that puts its largest number between a half and one; the exponent
travels with the row, in one byte.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from split_unlearning.models.training import FloatCodec
from split_unlearning.transport.message import Array

_BFLOAT16 = "/bfloat16"
_FLOAT16 = "/float16"
_EXPONENTS = "/exponents"

# Powers of two with exponents from minus this to this are normal float32 numbers.
_MOST = 126
_BIAS, _FRACTION_BITS = 127, 23


def pack(tensors: Mapping[str, torch.Tensor], codec: FloatCodec) -> dict[str, torch.Tensor]:
    """Return tensors as they cross the cut, rounded ones under other names; `unpack` reads them.

    Float32 tensors of two dimensions or more are rounded; others stay.
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
    """Read the tensors of `pack`, whatever the codec; rounded ones are float32 again.

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
    """Return arrays as they travel in a message, see `pack`.

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
    """Read the arrays of `pack_arrays`, whatever the codec.

    Raises
    ------
    ValueError
        As `unpack`.
    """
    if not any(name.endswith((_BFLOAT16, _FLOAT16)) for name in arrays):
        return dict(arrays)
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    for name in tensors:
        if name.endswith(_BFLOAT16):
            _require(name, tensors[name], torch.int16)
            tensors[name] = tensors[name].view(torch.bfloat16)
    return {name: tensor.numpy() for name, tensor in unpack(tensors).items()}


def _exponents(tensor: torch.Tensor) -> torch.Tensor:
    """Return, for each row, the smallest power of two above its largest number: int32, shape (n,).

    0 for a row of zeros, and for a row that is not finite, which stays as it is.
    """
    rows = tensor.flatten(1)
    largest = rows.abs().amax(dim=1) if rows.shape[1] else rows.new_zeros(len(rows))
    exponents = torch.frexp(torch.where(largest.isfinite(), largest, 0)).exponent
    return exponents.clamp(-_MOST, _MOST)


def _scaled(tensor: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Return a tensor with rows multiplied by powers of two."""
    # Made of bits: torch.ldexp uses a power function, which need not be exact.
    powers = ((exponents + _BIAS) << _FRACTION_BITS).view(torch.float32)
    return tensor * powers.view(-1, *[1] * (tensor.ndim - 1))


def _require(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype is not dtype:
        raise ValueError(f"tensor {name!r} is {tensor.dtype}, not {dtype}")
