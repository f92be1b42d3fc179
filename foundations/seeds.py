"""A seed for every purpose, so that no random draw depends on another."""

from __future__ import annotations

import hashlib
import json


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return the seed of one purpose, from 0 to 2**63 - 1.

    The purpose is for instance ``"order", client, epoch``. It never says whether this is learning
    or forgetting.
    """
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
