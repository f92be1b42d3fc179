"""Where a process computes, and how tensors get there."""

from __future__ import annotations

import torch


def device(wanted: bool = True) -> torch.device:
    """Return where this process computes: its GPU if it was given one, else the CPU.

    Ray hides the GPUs that a process did not ask for. It can pretend to have GPUs: then the process
    sees none, and a result names the device that was really used.

    Parameters
    ----------
    wanted : bool
        Whether the GPU is to be used at all.
    """
    return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")


def moved(tensor: torch.Tensor, to: torch.device) -> torch.Tensor:
    """Return a tensor on a device: the same object if it is there.

    To a GPU it goes once, through memory that its copy engine reads by itself, and is not waited
    for: what is computed with it there queues up behind it.

    Parameters
    ----------
    tensor : tensor
        Of any dtype and shape.
    to : torch.device
        Where to.
    """
    if to.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(to, non_blocking=True)
    return tensor.to(to)


def name_of(where: torch.device) -> str:
    """Return ``cpu``, or the name that a GPU's maker gave it."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
