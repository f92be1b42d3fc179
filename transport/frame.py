"""Frames: named tensors and text fields, in the format of safetensors.

Any language with a safetensors reader can join. The safetensors package reads files and whole byte
strings; a link reads from a stream, each tensor into memory of its own, and writes from the memory
of each tensor.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

_FIELDS = "__metadata__"
_LENGTH_BYTES = 8
_ALIGNMENT = 8
_MAX_HEADER_BYTES = 2**20
_MAX_DIMENSIONS = 64

# Names of the format, in its order: a writer begins with the dtypes listed last.
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_RANKS = {dtype: -rank for rank, dtype in enumerate(_DTYPES.values())}

# NumPy views of dtypes that NumPy lacks.
_BITS = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}

# Batches are alike, so their headers are cached: this many.
_KNOWN_HEADERS = 64

_Entries = tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]


class FrameError(ValueError):
    """A frame that is malformed or too large, or a tensor or field that no frame can hold."""


class Stream(Protocol):
    """A buffered binary stream; it returns fewer bytes than asked only at its end."""

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer with the next bytes; return their number."""


@dataclass(frozen=True)
class Frame:
    """Tensors and fields, ready to be written.

    The parts are the header and the bytes of each tensor, in the order of writing. Tensors are not
    copied: they must not change before the frame is written.
    """

    parts: tuple[bytes | memoryview, ...]

    def __len__(self) -> int:
        """Return the size in bytes."""
        return sum(map(len, self.parts))

    def __bytes__(self) -> bytes:
        """Return the frame in one piece, a copy."""
        return b"".join(self.parts)


@dataclass(frozen=True)
class ReceivedFrame:
    """The content of a frame.

    The tensors are writable, on the CPU, each with memory of its own that starts at a multiple of
    64 bytes: vectorised kernels treat an unaligned head apart, which changes the order of sums and
    so their last bits. The fields are text from the header. The size is the frame's, in bytes.
    """

    tensors: dict[str, torch.Tensor]
    fields: dict[str, str]
    size: int


def encode(tensors: Mapping[str, torch.Tensor], fields: Mapping[str, str] | None = None) -> Frame:
    """Make a frame of tensors and fields, the same bytes as the safetensors package.

    Tensors are dense, on the CPU, contiguous or not, of any dtype that safetensors has a name for.
    They do not keep their order in the frame.

    Raises
    ------
    FrameError
        If a tensor or a field does not fit into a frame.
    """
    dense = {name: _dense(name, tensor) for name, tensor in tensors.items()}
    in_turn = sorted(dense.items(), key=lambda item: (_RANKS[item[1].dtype], item[0]))
    entries = tuple((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in in_turn)
    header = _header(entries, tuple((fields or {}).items()))
    return Frame((header, *(_bytes_of(tensor) for _, tensor in in_turn)))


def read(stream: Stream, max_bytes: int | None = None) -> ReceivedFrame:
    """Read one frame from a stream; a frame of more than `max_bytes` is not read.

    Raises
    ------
    EOFError
        If the stream ends where a frame would begin.
    FrameError
        If the frame is larger than `max_bytes`, or malformed in any way.
    """
    start = stream.read(_LENGTH_BYTES)
    if not start:
        raise EOFError("there is no further frame")
    length = int.from_bytes(start, "little")
    if length > _MAX_HEADER_BYTES:
        raise _malformed(f"its header has {length} bytes; allowed: up to {_MAX_HEADER_BYTES}")
    size = _LENGTH_BYTES + length
    _require_size(size, max_bytes)
    header = stream.read(length)
    if len(start) + len(header) < size:
        raise _malformed("it ends within its header")
    entries, fields, payload = _layout(header)
    size += payload
    _require_size(size, max_bytes)
    tensors = {name: _filled(stream, name, dtype, shape) for name, dtype, shape in entries}
    return ReceivedFrame(tensors, dict(fields), size)


def decode(data: bytes, max_bytes: int | None = None) -> ReceivedFrame:
    """Read a frame from bytes that hold nothing else.

    Raises
    ------
    FrameError
        If the frame is larger than `max_bytes`, or malformed in any way.
    """
    _require_size(len(data), max_bytes)
    stream = io.BytesIO(data)
    try:
        received = read(stream)
    except EOFError as error:
        raise _malformed("it is empty") from error
    if received.size < len(data):
        raise _malformed(f"{len(data) - received.size} bytes follow its last tensor")
    return received


def _dense(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor; a copy only where it is not contiguous."""
    if not isinstance(name, str) or name == _FIELDS:
        raise FrameError(f"{name!r} cannot name a tensor")
    if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
        raise FrameError(f"{name!r} is not a tensor on the CPU")
    if tensor.layout is not torch.strided or tensor.dtype not in _NAMES:
        raise FrameError(f"no frame can hold {name!r}, {tensor.layout} of {tensor.dtype}")
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a dense tensor, which lives as long as the view."""
    known = tensor.view(_BITS[tensor.dtype]) if tensor.dtype in _BITS else tensor
    return known.numpy().reshape(-1).view(np.uint8).data


@lru_cache(_KNOWN_HEADERS)
def _header(entries: _Entries, fields: tuple[tuple[str, str], ...]) -> bytes:
    """Return the header of a frame, preceded by its length."""
    header: dict[str, Any] = {}
    if not all(isinstance(text, str) for field in fields for text in field):
        raise FrameError("the fields of a frame are text, by names that are text")
    if fields:
        header[_FIELDS] = dict(fields)
    end = 0
    for name, dtype, shape in entries:
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise FrameError(f"no frame can hold this text: {error.reason}") from error
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _MAX_HEADER_BYTES:
        raise FrameError(f"names and fields of a frame have at most {_MAX_HEADER_BYTES} bytes")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


@lru_cache(_KNOWN_HEADERS)
def _layout(header: bytes) -> tuple[_Entries, tuple[tuple[str, str], ...], int]:
    """Return a header's tensors in the order of their bytes, fields, bytes of the payload."""
    try:
        read = json.loads(
            header.decode(), object_pairs_hook=_without_repetition, parse_constant=_refuse
        )
        # Refuse names and texts that could not be sent back.
        json.dumps(read, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _malformed(f"its header is no JSON: {' '.join(str(error).split())}") from error
    fields = read.pop(_FIELDS, None) if isinstance(read, dict) else None
    if not isinstance(read, dict) or not (fields is None or _is_text(fields)):
        raise _malformed("its header is no object, or its fields are no text")
    announced = sorted(
        (_announced(name, entry) for name, entry in read.items()), key=lambda tensor: tensor[1:3]
    )
    end = 0
    for name, start, stop, _, _ in announced:
        if start != end:
            raise _malformed(f"tensor {name!r} begins at {start}, not at {end}")
        end = stop
    entries = tuple((name, dtype, shape) for name, _, _, dtype, shape in announced)
    return entries, tuple((fields or {}).items()), end


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    once = dict(pairs)
    if len(once) < len(pairs):
        raise ValueError("a name is there twice")
    return once


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _is_text(fields: object) -> bool:
    return isinstance(fields, dict) and all(isinstance(text, str) for text in fields.values())


def _announced(name: str, entry: object) -> tuple[str, int, int, torch.dtype, tuple[int, ...]]:
    """Return name, start, end, dtype and shape of a tensor from its entry in a header."""
    match entry:
        case {"dtype": str(known), "shape": list(shape), "data_offsets": [start, stop], **more}:
            numbers = (*shape, start, stop)
            # type(), since a bool is an int to isinstance.
            if not more and known in _DTYPES and all(type(n) is int and n >= 0 for n in numbers):
                dtype = _DTYPES[known]
                if stop - start == dtype.itemsize * math.prod(shape) and _possible(shape, dtype):
                    return name, start, stop, dtype, tuple(shape)
    raise _malformed(f"tensor {name!r} has no dtype, shape and place that fit each other")


def _possible(shape: list[int], dtype: torch.dtype) -> bool:
    """Return whether torch has such tensors, without allocating memory for one."""
    if len(shape) > _MAX_DIMENSIONS:
        return False
    try:
        torch.empty(shape, dtype=dtype, device="meta")
    except (RuntimeError, TypeError):
        return False
    return True


def _filled(stream: Stream, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Read the next bytes into a tensor."""
    try:
        tensor = torch.empty(shape, dtype=dtype)
    except RuntimeError as error:
        raise _malformed(f"there is no memory for tensor {name!r}, {list(shape)}") from error
    memory = _bytes_of(tensor)
    if stream.readinto(memory) < len(memory):
        raise _malformed(f"it ends within tensor {name!r}")
    if dtype is torch.bool and tensor.numel() and tensor.view(torch.uint8).max() > 1:
        raise _malformed(f"tensor {name!r} holds neither true nor false")
    return tensor


def _require_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise FrameError(f"frame of {size} bytes is larger than the limit of {limit}")


def _malformed(why: str) -> FrameError:
    return FrameError(f"malformed frame: {why}")
