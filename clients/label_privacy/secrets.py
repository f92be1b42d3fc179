"""Draws that whoever lacks a secret can neither predict nor repeat.

The server knows the run's seed, so nothing that protects somebody from it may follow from that.
Everything here follows from a secret and from what the draw is for.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.unlearning.exactness import Ids

_KEY_BYTES = 32
_SHORTEST_SECRET = 16


def derive_key(secret: bytes, *purpose: str | int) -> bytes:
    """Return the key of one purpose (HKDF-SHA256, RFC 5869).

    Parameters
    ----------
    secret : bytes
        At least 16 bytes. From random bytes or a key agreement, not from a password.
    purpose : str or int
        What the key is for. Keys of two purposes say nothing about each other.

    Returns
    -------
    bytes
        32 of them.

    Raises
    ------
    UserError
        If the secret is too short; the line does not show it.
    """
    if len(secret) < _SHORTEST_SECRET:
        raise refuse("secret", f"{len(secret)} bytes", f"at least {_SHORTEST_SECRET} bytes")
    info = json.dumps(list(purpose)).encode()
    return HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=info).derive(secret)


def generator(secret: bytes, *purpose: str | int) -> np.random.Generator:
    """Return a generator for small discrete draws of one client's own.

    Not for noise, since who sees many of its draws can compute the rest; and not for what several
    machines must agree on, since NumPy may change what a generator draws. `numbers` and `uniforms`
    are for those.
    """
    return np.random.default_rng(int.from_bytes(derive_key(secret, *purpose), "little"))


def numbers(secret: bytes, ids: Ids, *purpose: str | int) -> NDArray[np.uint64]:
    """Return a number for each id: a keyed hash (BLAKE2b), in which no other id has a say.

    Parameters
    ----------
    secret : bytes
        As in `derive_key`.
    ids : array of int64, shape (n,)
        Of samples, or of whatever the draw is about.
    purpose : str or int
        What the draw is for.

    Returns
    -------
    array of uint64, shape (n,)
        Evenly distributed.
    """
    key = derive_key(secret, *purpose)
    drawn = b"".join(hashlib.blake2b(one, digest_size=8, key=key).digest() for one in _words(ids))
    return np.frombuffer(drawn, dtype="<u8").astype(np.uint64)


def uniforms(secret: bytes, ids: Ids, size: int, *purpose: str | int) -> NDArray[np.float64]:
    """Return floats between 0 and 1, drawn anew for each id by a stream cipher (ChaCha20).

    Each purpose has a key and each id a nonce, so that the row of an id is the same whichever
    others are asked for.

    Parameters
    ----------
    secret : bytes
        As in `derive_key`.
    ids : array of int64, shape (n,)
        One nonce each.
    size : int
        How many floats an id gets.
    purpose : str or int
        What the draw is for.

    Returns
    -------
    array of float64, shape (n, size)
        Each an odd multiple of 2**-53: 52 random bits, never 0 nor 1, symmetric about 1/2.
    """
    key = derive_key(secret, *purpose)
    # A keystream is what the cipher makes of zeros.
    zeros = bytes(8 * size)
    stream = bytearray(len(ids) * len(zeros))
    for place, one in enumerate(_words(ids)):
        # The cipher counts its blocks in the first 8 bytes.
        cipher = Cipher(algorithms.ChaCha20(key, bytes(8) + one), mode=None)
        row = memoryview(stream)[place * len(zeros) : (place + 1) * len(zeros)]
        cipher.encryptor().update_into(zeros, row)
    words = np.frombuffer(stream, dtype="<u8").reshape(len(ids), size) >> np.uint64(12)
    drawn = words.astype(np.float64)
    drawn += 0.5
    drawn *= 2.0**-52
    return drawn


def _words(ids: Ids) -> list[bytes]:
    """Return each id as 8 bytes, the lowest first."""
    flat = np.asarray(ids, dtype="<i8").tobytes()
    return [flat[place : place + 8] for place in range(0, len(flat), 8)]
