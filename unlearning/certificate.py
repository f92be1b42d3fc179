"""Certificates of forgetting: verified claims, signed so that a change is detected."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from split_unlearning.foundations.errors import UserError

_SIGNATURE, _KEY = "signature", "public_key"


def new_key() -> bytes:
    """Return a new private Ed25519 key, in PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def sign(claims: dict[str, Any], key: bytes) -> dict[str, Any]:
    """Return claims (values that JSON can hold) with a public key and a signature.

    Raises
    ------
    UserError
        If the key cannot be read.
    """
    named = {**claims, _KEY: public_key(key)}
    return {**named, _SIGNATURE: _private(key).sign(_canonical(named)).hex()}


def public_key(key: bytes) -> str:
    """Return the public key of a private one, in hexadecimal digits.

    Raises
    ------
    UserError
        If the key cannot be read.
    """
    return _private(key).public_key().public_bytes_raw().hex()


def check(certificate: dict[str, Any], key: bytes | None = None) -> None:
    """Check that a certificate is as it was signed.

    With `key`, the certificate must be signed by this private key. Without it the certificate is
    only known to be as its unknown signer made it: compare its `fingerprint` with a trusted
    fingerprint.

    Raises
    ------
    UserError
        If the certificate was changed, or signed by another key.
    """
    try:
        named = {name: value for name, value in certificate.items() if name != _SIGNATURE}
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(named[_KEY]))
        public.verify(_bytes(certificate[_SIGNATURE]), _canonical(named))
    except (InvalidSignature, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError("the certificate was changed since it was signed") from error
    if key is not None and public_key(key) != named[_KEY]:
        raise UserError("the certificate was not signed with the key of this state-dir")


def fingerprint(certificate: dict[str, Any]) -> str:
    """Return the SHA-256 of the public key in a certificate."""
    return hashlib.sha256(bytes.fromhex(certificate[_KEY])).hexdigest()


def _private(key: bytes) -> Ed25519PrivateKey:
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise UserError("the state-dir's key cannot be read") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UserError("the state-dir's key is no Ed25519 key")
    return private


def _bytes(text: str) -> bytes:
    """Read hexadecimal digits, only in the form that `bytes.hex` writes."""
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError(f"{text!r} is not written as bytes are")
    return data


def _canonical(claims: dict[str, Any]) -> bytes:
    return json.dumps(claims, sort_keys=True, separators=(",", ":")).encode()
