"""Memory that a training process gives back at each step, only to ask for it again."""

from __future__ import annotations

import ctypes
import os
from functools import cache

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# Bytes; above them memory goes back to the system. Before 2.35 glibc takes no more than the last.
_THRESHOLDS = (1 << 30, 1 << 25)


@cache
def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for its next step.

    glibc gives the memory of a step's activations back to the system, which fills the pages with
    zeros when the next step asks for them: up to a third of what the step of a small network takes.
    The process stays as large as it ever was. Call it in a process of our own alone, as often as
    you like; what the user has set (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``) stays.

    Returns
    -------
    bool
        Whether it was done: not with another C library.
    """
    if {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Tensors that are mapped one by one go back one by one, whatever is trimmed.
    mapped = any(mallopt(_M_MMAP_THRESHOLD, threshold) for threshold in _THRESHOLDS)
    return mapped and bool(mallopt(_M_TRIM_THRESHOLD, _THRESHOLDS[0]))
