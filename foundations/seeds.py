"""A seed for every purpose, so that no random draw depends on another."""

from __future__ import annotations

import hashlib
import json


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return the seed of one purpose.

    Parameters
    ----------
    seed : int
        The run's seed.
    purpose : str or int
        What the draw is for, for instance ``"order", client, epoch``. Never whether this is
        learning or forgetting.

    Returns
    -------
    int
        Between 0 and 2**63 - 1.
    """
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
