"""Memory that a training process frees at each step and needs again in the next."""

from __future__ import annotations

import ctypes
import os
from functools import cache

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# Bytes above which memory goes back to the system; glibc before 2.35 refuses more than the last.
_THRESHOLDS = (1 << 30, 1 << 25)


@cache
def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees, for its next step.

    glibc returns the memory of a step's activations to the system, which fills the pages with zeros
    when the next step asks for them: up to a third of the step's time in a small network. The
    process then stays at its largest size. Call this only in a process of our own; repeated calls
    do nothing. What the user sets (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``) stays.

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
    # A tensor with a mapping of its own goes back alone, whatever is trimmed.
    mapped = any(mallopt(_M_MMAP_THRESHOLD, threshold) for threshold in _THRESHOLDS)
    return mapped and bool(mallopt(_M_TRIM_THRESHOLD, _THRESHOLDS[0]))
