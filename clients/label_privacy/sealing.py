"""Sealed messages between clients: the server relays them and cannot open them.

The clients share one secret. The first of them draws it and seals it for each other client, under a
key that only the two can compute (X25519). From then on any text may be sealed under the secret. A
server that relays faithfully learns nothing; a server that replaces their keys by its own would
read along: the papers' server is curious, and honest about relaying.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from split_unlearning.clients.label_privacy.secrets import derive_key

SECRET_BYTES = 32
"""Length of every secret, private key and public key."""

_NONCE_BYTES, _TAG_BYTES = 12, 16

SEALED_BYTES = _NONCE_BYTES + _TAG_BYTES
"""Bytes that sealing adds to a text."""


def public_key(private: bytes) -> bytes:
    """Return the public key of a private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed_key(private: bytes, public: bytes) -> bytes:
    """Return the key that two parties share, from one's private and the other's public key.

    Raises
    ------
    ValueError
        If the public key is not valid.
    """
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    return derive_key(shared, "sealing")


def seal(text: bytes, key: bytes) -> bytes:
    """Return a sealed text; without the key nobody can read it, or change it unnoticed.

    It is `SEALED_BYTES` longer than the text, and differs each time.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, None)


def unseal(sealed: bytes, key: bytes) -> bytes:
    """Open a sealed text.

    Raises
    ------
    ValueError
        If it was sealed under another key, or changed on the way.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError) as error:
        raise ValueError(
            "a sealed message cannot be opened: it was changed on the way, or sealed by clients "
            "that share another secret"
        ) from error
