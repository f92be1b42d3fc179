"""Frames: named tensors and text fields as one piece of safetensors bytes.

Any language with a safetensors reader can join. The package writes frames and checks those that
come in; it reads no ``__metadata__`` from bytes, so the fields are taken from the header here.
"""

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

_FIELDS = "__metadata__"
_LENGTH_BYTES = 8


class FrameError(ValueError):
    """A frame that is malformed or too large, or a tensor or field that no frame can hold."""


def encode(tensors: Mapping[str, torch.Tensor], fields: Mapping[str, str] | None = None) -> bytes:
    """Write tensors and fields as one frame.

    Parameters
    ----------
    tensors : Mapping[str, torch.Tensor]
        Dense CPU tensors, contiguous or not, of any dtype that safetensors has a name for.
    fields : Mapping[str, str], optional
        Text that travels in the frame's header.

    Returns
    -------
    bytes
        The frame. Neither tensors nor fields keep their order in it.

    Raises
    ------
    FrameError
        If a tensor or a field cannot be put into a frame.
    """
    for name, tensor in tensors.items():
        # Two things the package lets pass: a name that makes the frame unreadable, and a device
        # that it would silently copy from.
        if name == _FIELDS:
            raise FrameError(f"{name!r} cannot name a tensor")
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
            raise FrameError(f"{name!r} is not a tensor on the CPU")
    try:
        own: dict[str, torch.Tensor] = {}
        owned: set[int] = set()
        for name, tensor in tensors.items():
            alone = _alone(tensor)
            own[name] = alone if alone.data_ptr() not in owned else alone.clone()
            owned.add(alone.data_ptr())
        # Given empty fields instead of none, it writes a header that is not JSON.
        return save(own, dict(fields) if fields else None)
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FrameError(f"no frame can hold this: {_one_line(error)}") from error


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of which the package sees that it is dense; a copy only of one that is not.

    It refuses views that are not contiguous, or only a part of their memory.
    """
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_contiguous() and plain.untyped_storage().nbytes() == plain.nbytes:
        return plain
    return plain.clone(memory_format=torch.contiguous_format)


def decode(
    data: bytes, max_bytes: int | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors and fields of one frame.

    Parameters
    ----------
    data : bytes
        The frame.
    max_bytes : int, optional
        The largest frame to accept, in bytes.

    Returns
    -------
    tensors : dict[str, torch.Tensor]
        CPU tensors with memory of their own, writable, each starting at a multiple of 64 bytes.
    fields : dict[str, str]
        The text that travelled in the header; empty if there was none.

    Raises
    ------
    FrameError
        If the frame is larger than `max_bytes`, or malformed in any way.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise FrameError(f"frame of {len(data)} bytes is larger than the limit of {max_bytes}")
    try:
        tensors = {name: _checked_and_aligned(name, tensor) for name, tensor in load(data).items()}
    except (SafetensorError, KeyError, RuntimeError, TypeError) as error:
        # All but the first: dtypes and shapes that the format has and torch has not.
        raise FrameError(f"malformed frame: {_one_line(error)}") from error
    # The package has found the header to be JSON, and the fields in it to be text or absent.
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length].decode())
    return tensors, header.get(_FIELDS) or {}


def _checked_and_aligned(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype is torch.bool and tensor.numel() and tensor.view(torch.uint8).max() > 1:
        raise FrameError(f"malformed frame: tensor {name!r} holds neither true nor false")
    # Vectorised kernels treat an unaligned head apart, which changes the order of sums and so their
    # last bits. The package leaves tensors wherever Python put their bytes; torch's own memory is
    # 64-byte aligned, so a copy makes results independent of that address.
    return tensor.clone() if tensor.data_ptr() % 64 else tensor


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
