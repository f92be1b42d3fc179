"""The certificate of a link's server, and the address it is for."""

import ipaddress
import socket
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LIFETIME = timedelta(days=365)
_CLOCK_SKEW = timedelta(days=1)


def resolve(host: str) -> Address:
    """Return the one numeric address that a host means, so that nobody resolves it differently.

    Raises
    ------
    ValueError
        If `host` is empty, unknown or means every address.
    """
    if not host:
        raise ValueError("host='' is not possible; allowed: one address of this machine")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"host={host!r} is not possible: {error.strerror}") from error
    address = ipaddress.ip_address(found[0][4][0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if (mapped or address).is_unspecified:
        raise ValueError(f"host={host!r} means every address; allowed: one address of this machine")
    return mapped or address


def self_signed(address: Address) -> tuple[bytes, bytes]:
    """Return a new private key and its self-signed certificate for an address, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "split-unlearning link")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
        # No authority: a client that trusts this certificate trusts it alone.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
