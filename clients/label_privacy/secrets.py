"""Draws from a secret, which nobody without the secret can predict or repeat.

The server knows the run's seed, so protection from the server must not follow from that. Every draw
here follows from a secret and from its purpose.
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
    """Return the key of one purpose, 32 bytes (HKDF-SHA256, RFC 5869).

    Keys of two purposes say nothing about each other. The secret has at least 16 bytes, random or
    from a key agreement, and is no password.

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

    Not for noise, since a reader of many draws can compute the rest; and not for draws that several
    machines must agree on, since NumPy may change its generators. `numbers` and `uniforms` are for
    those.
    """
    return np.random.default_rng(int.from_bytes(derive_key(secret, *purpose), "little"))


def numbers(secret: bytes, ids: Ids, *purpose: str | int) -> NDArray[np.uint64]:
    """Return a uniform number for each id: a keyed hash (BLAKE2b), independent of other ids.

    The result is uint64, shape (n,).
    """
    key = derive_key(secret, *purpose)
    drawn = b"".join(hashlib.blake2b(word, digest_size=8, key=key).digest() for word in _words(ids))
    return np.frombuffer(drawn, dtype="<u8").astype(np.uint64)


def uniforms(secret: bytes, ids: Ids, size: int, *purpose: str | int) -> NDArray[np.float64]:
    """Return floats between 0 and 1 for each id, shape (n, size), from a stream cipher (ChaCha20).

    Each purpose has a key and each id a nonce, so that an id's row does not depend on the other
    ids. Each float is an odd multiple of 2**-53: 52 random bits, never 0 nor 1, symmetric about
    1/2.
    """
    key = derive_key(secret, *purpose)
    # The cipher turns zeros into its keystream.
    zeros = bytes(8 * size)
    stream = bytearray(len(ids) * len(zeros))
    for place, word in enumerate(_words(ids)):
        # The first 8 bytes are the cipher's block counter.
        cipher = Cipher(algorithms.ChaCha20(key, bytes(8) + word), mode=None)
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
