"""Sample ids as salted hashes: enough to leave a sample out, and no list of who was forgotten."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import torch

from split_unlearning.unlearning.exactness import Ids

_SALT_BYTES, _HASH_BYTES = 16, 32


def new_salt() -> torch.Tensor:
    """Return a random salt, uint8, shape (16,); nothing that is trained depends on it."""
    return torch.tensor(list(os.urandom(_SALT_BYTES)), dtype=torch.uint8)


def salted(ids: Ids, salt: torch.Tensor) -> torch.Tensor:
    """Return the SHA-256 of the salt and each id.

    Parameters
    ----------
    ids : array of int64, shape (n,)
        Sample ids.
    salt : tensor of uint8, shape (16,)
        Of whoever holds the samples. Ids are small numbers: who has the salt can find them by
        trying, who has only the hashes cannot.

    Returns
    -------
    tensor of uint8, shape (n, 32)
    """
    secret = salt.numpy().tobytes()
    hashes = [hashlib.sha256(secret + int(one).to_bytes(8, "little")).digest() for one in ids]
    rows = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, _HASH_BYTES)
    return torch.from_numpy(rows.copy())


def among(ids: Ids, hashes: torch.Tensor, salt: torch.Tensor) -> Ids:
    """Return which of some ids the hashes mean, in their order.

    Parameters
    ----------
    ids : array of int64, shape (n,)
        Sample ids.
    hashes : tensor of uint8, shape (m, 32)
        From `salted`.
    salt : tensor of uint8, shape (16,)
        That they were made with.
    """
    if not len(hashes):
        return ids[:0]
    meant = {row.tobytes() for row in hashes.numpy()}
    known = np.array([row.tobytes() in meant for row in salted(ids, salt).numpy()], dtype=bool)
    mine: Ids = ids[known]
    return mine
