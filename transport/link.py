"""The link: frames exchanged, every batch, between one client and the server segment.

Over the network it is one gRPC stream for each client, opened with a token and ended by either
side; within one process a `LoopbackLink` takes the same frames the same way. A link is used by one
thread at a time.
"""

import hmac
import ipaddress
import logging
import math
import queue
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from torch import Tensor

from transport.codec import FrameError, decode, encode
from transport.ledger import Ledger

MAX_FRAME_BYTES = 256 * 2**20
MAX_STREAMS = 64

_SERVICE = "split_unlearning.Link"
_METHOD = "Exchange"
# The status of a refusal travels in HTTP/2 headers, whose default limit is 8 KiB.
_MAX_REASON = 1000
_TLS_LIFETIME = timedelta(days=365)
_TLS_CLOCK_SKEW = timedelta(days=1)

_log = logging.getLogger(__name__)


class LinkError(RuntimeError):
    """A link that cannot go on; the message is one line that says why."""


@dataclass(frozen=True)
class Caller:
    """Who sends a frame, as the stream announced when it opened.

    The token admits whoever holds it under any client id: it keeps strangers out, it does not tell
    admitted clients apart.

    Attributes
    ----------
    client : int
        The client's id.
    phase : str
        The ledger's phase that the exchanges belong to.
    """

    client: int
    phase: str


Handler = Callable[
    [Caller, dict[str, Tensor], dict[str, str]], tuple[Mapping[str, Tensor], Mapping[str, str]]
]
"""What the server does with one frame: from its caller, tensors and fields to those of the reply.

Called from several threads at once, one for each stream: the handler does its own locking. A
`ValueError` blames the client, any other exception the server; either ends that stream only.
"""


class Link(Protocol):
    """A client's side of the link.

    Attributes
    ----------
    seconds_waiting : float
        Seconds spent waiting for replies so far. Encoding and decoding are the client's own work
        and not counted.
    """

    seconds_waiting: float

    def exchange(
        self, tensors: Mapping[str, Tensor], fields: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Send one frame and wait for its reply.

        Parameters
        ----------
        tensors : Mapping[str, torch.Tensor]
            What to send, see `transport.codec.encode`.
        fields : Mapping[str, str], optional
            Text to send with it.

        Returns
        -------
        tuple[dict[str, torch.Tensor], dict[str, str]]
            The reply's tensors and fields, see `transport.codec.decode`.

        Raises
        ------
        FrameError
            If the tensors or fields cannot be sent; the link can go on.
        LinkError
            If the server refuses, fails, is gone or takes too long; the link is then closed.
        """

    def close(self) -> None:
        """End the link. Closing twice does nothing more."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True)
class Endpoint:
    """Where a link's server is and what admits a client; travels in a Flower fit instruction.

    Attributes
    ----------
    target : str
        ``host:port``.
    token : str
        The server's secret.
    certificate : str
        The one certificate to trust, in PEM; empty for a connection without TLS.
    """

    target: str
    token: str = field(repr=False)
    certificate: str = field(repr=False)

    def to_fields(self) -> dict[str, str]:
        """Return the endpoint as text, under `link-target`, `link-token`, `link-certificate`."""
        return {
            "link-target": self.target,
            "link-token": self.token,
            "link-certificate": self.certificate,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> "Endpoint":
        """Read an endpoint from what `to_fields` wrote; other keys are ignored.

        Raises
        ------
        ValueError
            If a key is missing or is not text.
        """
        values = []
        for key in ("link-target", "link-token", "link-certificate"):
            value = fields.get(key)
            if value is None or not isinstance(value, str):
                raise ValueError(f"the instruction names no link: {key} is missing or not text")
            values.append(value)
        return cls(*values)


class LinkServer:
    """Hosts the link's service, from its construction until `stop`.

    Parameters
    ----------
    handler : Handler
        What to do with each frame; called from several threads at once.
    ledger : Ledger
        Where the bytes of every frame are recorded, under its caller's client and phase.
    host : str
        The one address to listen at, also the address clients are told. The system chooses the
        port.
    max_frame_bytes : int
        The largest frame, in bytes, to accept or to send.
    tls : bool, optional
        Whether to encrypt; by default exactly when `host` is not this machine's loopback. The
        certificate is made here, and its private key never leaves memory.
    max_streams : int
        Streams served at once, each by one thread. Further ones wait until one of these ends.

    Raises
    ------
    ValueError
        If `host` is empty, unknown or means every address, or if `tls` is false and `host` is not
        the loopback.
    LinkError
        If `host` is no address of this machine.
    """

    def __init__(
        self,
        handler: Handler,
        ledger: Ledger,
        host: str = "127.0.0.1",
        max_frame_bytes: int = MAX_FRAME_BYTES,
        tls: bool | None = None,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        address = _resolve(host)
        if tls is False and not address.is_loopback:
            raise ValueError(f"host={host!r} is not the loopback: its token must not travel bare")
        self._handler = handler
        self._ledger = ledger
        self._max_frame_bytes = max_frame_bytes
        self._token = secrets.token_urlsafe(32)
        self._workers = ThreadPoolExecutor(max_streams, thread_name_prefix="link-server")
        self._server = grpc.server(
            self._workers,
            options=[
                ("grpc.max_receive_message_length", max_frame_bytes),
                ("grpc.max_send_message_length", -1),
                # No second process may share the port and be given some of the streams.
                ("grpc.so_reuseport", 0),
                # Clients ask whether it is still there (see `connect`), by default too often.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        serve = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: serve}),)
        )
        bracketed = f"[{address}]" if address.version == 6 else str(address)
        certificate = b""
        try:
            if tls or not address.is_loopback:
                key, certificate = _self_signed(address)
                credentials = grpc.ssl_server_credentials([(key, certificate)])
                port = self._server.add_secure_port(f"{bracketed}:0", credentials)
            else:
                port = self._server.add_insecure_port(f"{bracketed}:0")
        except RuntimeError as error:
            raise LinkError(f"cannot listen at {host}: {_one_line(error)}") from error
        self._endpoint = Endpoint(f"{bracketed}:{port}", self._token, certificate.decode())
        self._server.start()

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find this server, and what admits them."""
        return self._endpoint

    def stop(self) -> None:
        """End every stream and return when no handler runs any more. Stopping twice is harmless."""
        self._server.stop(grace=None).wait()
        self._workers.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve(self, frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            caller = self._admit(context.invocation_metadata())
            for frame in frames:
                yield _answer(self._handler, self._ledger, caller, frame, self._max_frame_bytes)
        except _RefusalError as refusal:
            context.abort(refusal.code, str(refusal))

    def _admit(self, metadata: Iterable[tuple[str, str]]) -> Caller:
        """Check the token, before any frame is read, and return who opened the stream."""
        announced = dict(metadata)
        token = announced.get("link-token", "")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise _RefusalError(grpc.StatusCode.UNAUTHENTICATED, "missing or wrong token")
        try:
            return Caller(int(announced["link-client"]), announced["link-phase"])
        except (KeyError, ValueError) as error:
            raise _RefusalError(
                grpc.StatusCode.INVALID_ARGUMENT, "the stream names no client and phase"
            ) from error


class _RefusalError(Exception):
    """Why the server ends a stream: a gRPC status and one line."""

    def __init__(self, code: grpc.StatusCode, reason: object) -> None:
        super().__init__(_one_line(reason))
        self.code = code


def _answer(
    handler: Handler, ledger: Ledger, caller: Caller, frame: bytes, max_frame_bytes: int
) -> bytes:
    """Turn a request frame into its reply, counting both: the server's side of one exchange."""
    _require_size("request", frame, max_frame_bytes)
    try:
        ledger.record(caller.client, caller.phase, up=len(frame))
        answer = handler(caller, *decode(frame))
    except ValueError as error:
        raise _RefusalError(grpc.StatusCode.INVALID_ARGUMENT, error) from error
    except Exception as error:  # noqa: BLE001 - whatever the handler raises must reach its client
        _refuse_own_fault(error)
    try:
        reply = encode(*answer)
    except (FrameError, TypeError, AttributeError) as error:
        _refuse_own_fault(error)
    _require_size("reply", reply, max_frame_bytes)
    ledger.record(caller.client, caller.phase, down=len(reply), messages=1)
    return reply


def _refuse_own_fault(error: Exception) -> NoReturn:
    # The client is told the type and message only; the place is for the server's log.
    _log.error("the link's handler failed", exc_info=error)
    reason = f"{type(error).__name__}: {error}"
    raise _RefusalError(grpc.StatusCode.INTERNAL, reason) from error


def _require_size(what: str, frame: bytes, limit: int) -> None:
    if len(frame) > limit:
        raise _RefusalError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{what} frame of {len(frame)} bytes is larger than the limit of {limit}",
        )


class _FramedLink(ABC):
    """What both links share: frames, the clock and the end."""

    def __init__(self) -> None:
        self.seconds_waiting = 0.0
        self._closed = False

    def exchange(
        self, tensors: Mapping[str, Tensor], fields: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Send one frame and wait for its reply; see `Link.exchange`."""
        if self._closed:
            raise LinkError("the link is closed")
        request = encode(tensors, fields)
        started = time.perf_counter()
        try:
            reply = self._send(request)
        except BaseException:
            # Also after an interrupt: a late reply would be taken for the next request's.
            self.close()
            raise
        finally:
            self.seconds_waiting += time.perf_counter() - started
        try:
            return decode(reply)
        except FrameError as error:
            self.close()
            raise LinkError(f"the server's reply cannot be read: {error}") from error

    def close(self) -> None:
        """End the link. Closing twice does nothing more."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _send(self, request: bytes) -> bytes:
        """Return the reply frame to a request frame, or raise LinkError."""


class LoopbackLink(_FramedLink):
    """A `Link` to a handler in the same process: same frames, counts and errors, no network.

    Parameters
    ----------
    handler : Handler
        What to do with each frame.
    ledger : Ledger
        Where the bytes of every frame are recorded.
    client : int
        The client's id.
    phase : str
        The ledger's phase.
    max_frame_bytes : int
        The largest frame, in bytes, either way.
    """

    def __init__(
        self,
        handler: Handler,
        ledger: Ledger,
        client: int,
        phase: str,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        super().__init__()
        self._handler = handler
        self._ledger = ledger
        self._caller = Caller(client, phase)
        self._max_frame_bytes = max_frame_bytes

    def _send(self, request: bytes) -> bytes:
        try:
            return _answer(
                self._handler, self._ledger, self._caller, request, self._max_frame_bytes
            )
        except _RefusalError as refusal:
            raise _server_ended(refusal.code, str(refusal)) from refusal


def connect(endpoint: Endpoint, client: int, phase: str, timeout: float | None = None) -> Link:
    """Open a link to a server.

    Parameters
    ----------
    endpoint : Endpoint
        Where the server is and what admits this client.
    client : int
        This client's id.
    phase : str
        The ledger's phase that the exchanges belong to.
    timeout : float, optional
        Seconds that one exchange may take; by default as long as the connection lives.

    Returns
    -------
    Link
        The link. Nothing is waited for here: a server that is absent or refuses this client shows
        as a `LinkError` of the first exchange.

    Raises
    ------
    ValueError
        If `timeout` is not positive.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout={timeout} is not possible; allowed: seconds above zero")
    options = [
        # The server bounds the frames of both directions, and it is trusted by its certificate.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A repeated frame would be a repeated training step.
        ("grpc.enable_retries", 0),
        # Batches go where the endpoint says and nowhere else, whatever http_proxy holds.
        ("grpc.enable_http_proxy", 0),
        # Each link has its own connection: one client's large frame does not delay another's.
        ("grpc.use_local_subchannel_pool", 1),
        # A server machine that vanishes sends no goodbye: ask whether it is still there.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if endpoint.certificate:
        credentials = grpc.ssl_channel_credentials(endpoint.certificate.encode())
        channel = grpc.secure_channel(endpoint.target, credentials, options)
    else:
        channel = grpc.insecure_channel(endpoint.target, options)
    metadata = (
        ("link-token", endpoint.token),
        ("link-client", str(client)),
        ("link-phase", phase),
    )
    return _StreamLink(channel, metadata, timeout)


class _StreamLink(_FramedLink):
    """A `Link` over one gRPC stream."""

    def __init__(
        self, channel: Any, metadata: tuple[tuple[str, str], ...], timeout: float | None
    ) -> None:
        super().__init__()
        self._channel = channel
        # gRPC takes requests from an iterator in a thread of its own; None ends it.
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stream = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
        self._call = stream(iter(self._requests.get, None), metadata=metadata)
        self._alarm = None if timeout is None else _Alarm(timeout, self._call.cancel)

    def close(self) -> None:
        """End the link. Closing twice does nothing more."""
        if not self._closed:
            super().close()
            self._requests.put(None)
            if self._alarm is not None:
                self._alarm.stop()
            self._channel.close()

    def _send(self, request: bytes) -> bytes:
        if self._alarm is not None:
            self._alarm.set()
        self._requests.put(request)
        try:
            reply: bytes = next(self._call)
        except StopIteration as end:
            raise LinkError("the server ended the link") from end
        except grpc.RpcError as error:
            if self._alarm is not None and self._alarm.rang:
                raise LinkError(
                    f"one exchange took longer than the {self._alarm.seconds:g} seconds allowed"
                ) from error
            raise _server_ended(self._call.code(), self._call.details()) from error
        if self._alarm is not None:
            self._alarm.clear()
        return reply


class _Alarm:
    """Calls `ring` when the time since `set` exceeds `seconds` without `clear`.

    A gRPC stream has a deadline for all of it, none for one exchange, and a timer thread started
    for each exchange would cost as much as a small exchange. One thread for the link's life does,
    and setting or clearing it does not even wake it: it looks again when the alarm could be due.
    """

    def __init__(self, seconds: float, ring: Callable[[], object]) -> None:
        self.seconds = seconds
        self.rang = False
        self._ring = ring
        self._due = math.inf
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="link-alarm", daemon=True)
        self._thread.start()

    def set(self) -> None:
        self._due = time.monotonic() + self.seconds

    def clear(self) -> None:
        self._due = math.inf

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        left = self.seconds
        while not self._stopped.wait(left):
            left = min(self._due - time.monotonic(), self.seconds)
            if left <= 0:
                self.rang = True
                self._ring()
                return


def _server_ended(code: grpc.StatusCode, reason: str | None) -> LinkError:
    return LinkError(f"the link failed, {code.name}: {_one_line(reason or 'no reason given')}")


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:_MAX_REASON]


def _resolve(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the one numeric address that a host means, so that nobody resolves it differently."""
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


def _self_signed(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> tuple[bytes, bytes]:
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
        .not_valid_before(now - _TLS_CLOCK_SKEW)
        .not_valid_after(now + _TLS_LIFETIME)
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
