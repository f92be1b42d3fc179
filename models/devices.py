"""The device that a process computes on, and how tensors get there."""

from __future__ import annotations

import torch


def device(wanted: bool = True) -> torch.device:
    """Return the GPU of this process if it has one and `wanted` is true, else the CPU.

    Ray hides the GPUs that a process did not ask for. Where Ray only pretends to have GPUs, the
    process sees none: a result names the device that was really used.
    """
    return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")


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
