"""Salted hashes of sample ids: enough to leave a sample out, and no list of forgotten samples."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import torch

from split_unlearning.unlearning.exactness import Ids

_SALT_BYTES, _HASH_BYTES = 16, 32


def new_salt() -> torch.Tensor:
    """Return a random salt, uint8, shape (16,); no training depends on it."""
    return torch.tensor(list(os.urandom(_SALT_BYTES)), dtype=torch.uint8)


def salted(ids: Ids, salt: torch.Tensor) -> torch.Tensor:
    """Return the SHA-256 of the salt and each id: uint8, shape (n, 32).

    Ids are small numbers: the salt's holder, the client, can find them by trying; a reader of the
    hashes alone cannot.
    """
    secret = salt.numpy().tobytes()
    hashes = [hashlib.sha256(secret + int(sample).to_bytes(8, "little")).digest() for sample in ids]
    rows = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, _HASH_BYTES)
    return torch.from_numpy(rows.copy())


def among(ids: Ids, hashes: torch.Tensor, salt: torch.Tensor) -> Ids:
    """Return, in order, the ids whose hashes (from `salted`, shape (m, 32)) are given."""
    if not len(hashes):
        return ids[:0]
    meant = {row.tobytes() for row in hashes.numpy()}
    known = np.array([row.tobytes() in meant for row in salted(ids, salt).numpy()], dtype=bool)
    mine: Ids = ids[known]
    return mine
