"""What clients tell each other through the server, which relays it and cannot open it.

The clients share one secret. The first of them draws it and seals it for each other one, under a
key that only the two can work out (X25519). From then on anything may be sealed under it. A server
that relays faithfully learns nothing; one that puts keys of its own in place of theirs would read
along: the papers' server is curious, and honest about relaying.
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
"""How much longer a sealed text is than what it holds."""


def public_key(private: bytes) -> bytes:
    """Return what belongs to a private key and may be known to all."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed_key(private: bytes, public: bytes) -> bytes:
    """Return the key that two parties share, each with its private and the other's public key.

    Raises
    ------
    ValueError
        If the public key is none that a party would make.
    """
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    return derive_key(shared, "sealing")


def seal(text: bytes, key: bytes) -> bytes:
    """Return a text that only who knows the key can read, or change unnoticed.

    It is `SEALED_BYTES` longer, and differs each time, whatever it holds.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, None)


def unseal(sealed: bytes, key: bytes) -> bytes:
    """Return what was sealed.

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
