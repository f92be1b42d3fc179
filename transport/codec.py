"""Frames: named tensors and text fields as one piece of safetensors bytes.

The layout (eight bytes of header length, a JSON header, the raw elements) is written and read here
and not by the safetensors package, which reads no ``__metadata__`` from bytes and copies twice. The
package reads our frames and we read what it writes, so any language with a safetensors reader can
join.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_FIELDS = "__metadata__"
_LENGTH_BYTES = 8
# torch's own kernels stop at 64 dimensions, and its sizes and strides are signed 64-bit integers.
_MAX_DIMENSIONS = 64
_MAX_ELEMENTS = 2**63 - 1


class FrameError(ValueError):
    """A frame that is malformed or too large, or a tensor or field that no frame can hold."""


def encode(tensors: Mapping[str, torch.Tensor], fields: Mapping[str, str] | None = None) -> bytes:
    """Write tensors and fields as one frame.

    Parameters
    ----------
    tensors : Mapping[str, torch.Tensor]
        Dense CPU tensors of any shape, contiguous or not, of a floating (64, 32, 16 bits,
        bfloat16), integer (signed 8 to 64 bits, uint8) or boolean dtype.
    fields : Mapping[str, str], optional
        Text that travels in the frame's header.

    Returns
    -------
    bytes
        The frame. `decode` returns the tensors and the fields in the order given here.

    Raises
    ------
    FrameError
        If a tensor or a field cannot be put into a frame.
    """
    for name, tensor in tensors.items():
        _require_sendable(name, tensor)
    # Widest elements first, after a header padded to eight bytes: every tensor then lies at a
    # multiple of its element size, so a reader that maps the frame instead of copying can use it.
    payload: list[memoryview] = []
    spans: dict[str, list[int]] = {}
    end = 0
    for name in sorted(tensors, key=lambda name: -tensors[name].element_size()):
        elements = tensors[name].detach().resolve_neg().contiguous().reshape(-1)
        payload.append(elements.view(torch.uint8).numpy().data)
        spans[name] = [end, end + payload[-1].nbytes]
        end += payload[-1].nbytes
    header: dict[str, Any] = {}
    if fields:
        if not all(isinstance(text, str) for pair in fields.items() for text in pair):
            raise FrameError("a frame's fields must be text, names and values")
        header[_FIELDS] = dict(fields)
    for name, tensor in tensors.items():
        dtype, shape = _NAMES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": spans[name]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise FrameError(f"a name or field is not valid Unicode text: {error.reason}") from error
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "little"), text, *payload])


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
    header, start = _read_header(data)
    fields = header.pop(_FIELDS, {})
    if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
        raise FrameError("malformed frame: its fields are not text")
    layout = {name: _read_entry(name, entry) for name, entry in header.items()}
    # Checked before the first allocation: tensors that share bytes could otherwise claim, each of
    # them, as much memory as the whole frame.
    end = 0
    for _, _, first, last in sorted(layout.values(), key=lambda entry: entry[2:]):
        if first != end:
            raise FrameError("malformed frame: its tensors overlap or leave a gap")
        end = last
    if start + end != len(data):
        raise FrameError(
            f"malformed frame: {end} bytes of tensors announced, {len(data) - start} present"
        )
    tensors = {}
    for name, (dtype, shape, first, last) in layout.items():
        # Bytes arrive at whatever address the network stack chose, and vectorised kernels treat an
        # unaligned head apart, which changes the order of sums and so their last bits. torch's own
        # allocations are 64-byte aligned: one copy makes results independent of that address.
        memory = torch.empty(last - first, dtype=torch.uint8)
        memory.numpy()[:] = np.frombuffer(data, np.uint8, last - first, start + first)
        if dtype is torch.bool and last > first and int(memory.max()) > 1:
            raise FrameError(f"malformed frame: tensor {name!r} holds neither true nor false")
        tensors[name] = memory.view(dtype).reshape(shape)
    return tensors, fields


def _require_sendable(name: object, tensor: torch.Tensor) -> None:
    if not isinstance(name, str) or name == _FIELDS:
        raise FrameError(f"{name!r} cannot name a tensor")
    if not isinstance(tensor, torch.Tensor):
        raise FrameError(f"{name!r} is a {type(tensor).__name__}, not a tensor")
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise FrameError(f"tensor {name!r} is not a dense tensor on the CPU")
    if tensor.dtype not in _NAMES:
        raise FrameError(f"tensor {name!r} has dtype {tensor.dtype}, which no frame holds")


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the parsed header and the position of the first element."""
    if len(data) < _LENGTH_BYTES:
        raise FrameError(f"malformed frame: {len(data)} bytes are too few for a header")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if start > len(data):
        raise FrameError(
            f"malformed frame: header of {length} bytes announced, "
            f"{len(data) - _LENGTH_BYTES} present"
        )
    try:
        header = json.loads(data[_LENGTH_BYTES:start].decode(), object_pairs_hook=_entries)
    except (ValueError, RecursionError) as error:
        raise FrameError(
            "malformed frame: its header is not valid JSON with unique names"
        ) from error
    if not isinstance(header, dict):
        raise FrameError("malformed frame: its header is not a JSON object")
    return header, start


def _entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("two entries of one name")
    # JSON can spell half a character, which cannot be printed or sent on.
    "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()
    return entries


def _read_entry(name: str, entry: object) -> tuple[torch.dtype, list[int], int, int]:
    """Return a tensor's dtype, shape and the first and last position of its bytes."""
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(first), int(last)]}:
            dtype = _DTYPES.get(code)
        case _:
            raise FrameError(f"malformed frame: no dtype, shape and offsets for tensor {name!r}")
    if dtype is None:
        raise FrameError(f"malformed frame: tensor {name!r} has the unknown dtype {code!r}")
    if (
        len(shape) > _MAX_DIMENSIONS
        or not all(type(size) is int and 0 <= size <= _MAX_ELEMENTS for size in shape)
        or math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS
    ):
        raise FrameError(f"malformed frame: tensor {name!r} has an impossible shape")
    if first < 0 or last - first != math.prod(shape) * dtype.itemsize:
        raise FrameError(f"malformed frame: the shape and bytes of tensor {name!r} do not agree")
    return dtype, shape, first, last
