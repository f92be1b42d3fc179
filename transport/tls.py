"""TLS on a link: the server's certificate, the address it is for, and the clients' trust in it."""

import ipaddress
import secrets
import socket
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LIFETIME = timedelta(days=365)
_CLOCK_SKEW = timedelta(days=1)


def resolve(host: str) -> Address:
    """Return the numeric address of a host, so that every process uses the same address.

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


def server_context(address: Address) -> tuple[ssl.SSLContext, str]:
    """Return the TLS context of a server at an address, and its new certificate in PEM.

    The key is new too. The ssl module reads keys from files only: for that moment the key lies in a
    file, encrypted under a password that is in no file.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key, address)
    password = secrets.token_bytes(32)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="split-unlearning-link-") as folder:
        file = Path(folder) / "identity.pem"
        file.write_bytes(certificate + private)
        context.load_cert_chain(file, password=password)
    return context, certificate.decode()


def client_context(certificate: str) -> ssl.SSLContext:
    """Return the TLS context of a client that trusts this certificate (PEM) and no other.

    Raises
    ------
    ssl.SSLError
        If it is no certificate.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate)
    return context


def _context(side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _self_signed(key: ec.EllipticCurvePrivateKey, address: Address) -> bytes:
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
    return certificate.public_bytes(serialization.Encoding.PEM)
