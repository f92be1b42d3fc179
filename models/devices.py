"""The device that a process computes on, and how tensors get there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_withheld: list[None] = []


@contextmanager
def without_gpus() -> Iterator[None]:
    """Have this process compute on its CPUs, as a process that Ray gives no GPU."""
    _withheld.append(None)
    try:
        yield
    finally:
        _withheld.pop()


def device(wanted: bool = True) -> torch.device:
    """Return the GPU of this process if it has one and `wanted` is true, else the CPU.

    Ray hides the GPUs that a process did not ask for. Where Ray only pretends to have GPUs, the
    process sees none: a result names the device that was really used.
    """
    given = wanted and not _withheld and torch.cuda.is_available()
    return torch.device("cuda" if given else "cpu")


def moved(tensor: torch.Tensor, to: torch.device) -> torch.Tensor:
    """Return a tensor on a device; the same object if it is there already.

    A copy to a GPU goes through pinned memory and does not block: work on the tensor queues up
    behind the copy.
    """
    if to.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(to, non_blocking=True)
    return tensor.to(to)


def name_of(where: torch.device) -> str:
    """Return ``cpu``, or the GPU's name as its maker gave it."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
