"""The link over the network: one gRPC stream for each client.

A stream is opened with a token and ended by either side.
"""

import hmac
import queue
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc

from transport.certificate import resolve, self_signed
from transport.floats import FloatCodec
from transport.ledger import Ledger
from transport.link import (
    MAX_FRAME_BYTES,
    Caller,
    Endpoint,
    Handler,
    Link,
    LinkError,
    RefusalError,
    answer,
    link_failed,
    one_line,
)

MAX_STREAMS = 64

_SERVICE = "split_unlearning.Link"
_METHOD = "Exchange"


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
        address = resolve(host)
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
                # A client machine that vanishes sends no goodbye, and holds a thread until then.
                ("grpc.keepalive_time_ms", 30_000),
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
                key, certificate = self_signed(address)
                credentials = grpc.ssl_server_credentials([(key, certificate)])
                port = self._server.add_secure_port(f"{bracketed}:0", credentials)
            else:
                port = self._server.add_insecure_port(f"{bracketed}:0")
        except RuntimeError as error:
            raise LinkError(f"cannot listen at {host}: {one_line(error)}") from error
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
                yield answer(self._handler, self._ledger, caller, frame, self._max_frame_bytes)
        except RefusalError as refusal:
            context.abort(refusal.code, str(refusal))

    def _admit(self, metadata: Iterable[tuple[str, str]]) -> Caller:
        """Check the token, before any frame is read, and return who opened the stream."""
        announced = dict(metadata)
        token = announced.get("link-token", "")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise RefusalError(grpc.StatusCode.UNAUTHENTICATED, "missing or wrong token")
        try:
            return Caller(int(announced["link-client"]), announced["link-phase"])
        except (KeyError, ValueError) as error:
            raise RefusalError(
                grpc.StatusCode.INVALID_ARGUMENT, "the stream names no client and phase"
            ) from error


def connect(endpoint: Endpoint, client: int, phase: str, codec: FloatCodec = "float32") -> Link:
    """Open a link to a server.

    Parameters
    ----------
    endpoint : Endpoint
        Where the server is and what admits this client.
    client : int
        This client's id.
    phase : str
        The ledger's phase that the exchanges belong to.
    codec : "float32", "float16" or "bfloat16"
        What floating-point numbers are rounded to on the way, both ways.

    Returns
    -------
    Link
        The link. Nothing is waited for here: a server that is absent or refuses this client shows
        as a `LinkError` of the first exchange.
    """
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
    return _StreamLink(channel, metadata, codec)


class _StreamLink(Link):
    """A `Link` over one gRPC stream."""

    def __init__(
        self, channel: Any, metadata: tuple[tuple[str, str], ...], codec: FloatCodec
    ) -> None:
        super().__init__(codec)
        self._channel = channel
        # gRPC takes requests from an iterator in a thread of its own; None ends it.
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stream = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
        self._call = stream(iter(self._requests.get, None), metadata=metadata)

    def close(self) -> None:
        """End the link. Closing twice does nothing more."""
        if not self._closed:
            super().close()
            self._requests.put(None)
            self._channel.close()

    def _send(self, request: bytes) -> bytes:
        self._requests.put(request)
        try:
            reply: bytes = next(self._call)
        except StopIteration as end:
            raise LinkError("the server ended the link") from end
        except grpc.RpcError as error:
            raise link_failed(self._call.code(), self._call.details()) from error
        return reply
