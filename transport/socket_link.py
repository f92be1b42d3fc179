"""The link over the network: a TCP connection for each client, on which frames go back and forth.

A client begins with a frame without tensors, whose fields say who it is (``link-client``,
``link-phase``) and hold its token (``link-token``); nothing answers it. Each further one is a
request, and gets one reply. Either side ends the link by closing the connection, the server after a
frame that says why (``refusal``). On TLS 1.3 where it leaves the machine.
"""

import contextlib
import hmac
import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from types import TracebackType
from typing import NoReturn, Self, cast

from split_unlearning.models.training import FloatCodec
from split_unlearning.transport.frame import Frame, FrameError, ReceivedFrame, Stream, encode, read
from split_unlearning.transport.ledger import Ledger
from split_unlearning.transport.link import (
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
    refused,
    token_of,
)
from split_unlearning.transport.tls import client_context, resolve, server_context

MAX_LINKS = 1024

# Seconds. How long a client may take to connect and to say who it is, and how long it may go on
# sending what is not wanted any more.
_PATIENCE = 20.0
_POLL = 0.1
_HELLO_BYTES = 4096
_DIGITS = 20

# Connections that have not yet said who they are: with more of them, the oldest is closed.
_GREETINGS = 256

# Frames up to here are copied into one piece, which is faster than writing several.
_ONE_PIECE = 2**16
_READ_AHEAD = 2**16

# A machine that vanishes says no goodbye: the system asks whether it is still there, where it
# knows these. Seconds without a word until it asks, seconds between questions, how many it asks;
# milliseconds that what was sent may stay without a receipt.
_ALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}

_log = logging.getLogger(__name__)


class LinkServer:
    """Serves the link, from its construction until `stop`.

    The handler says what to do with each frame, and is called from several threads at once. `host`
    is the address to listen at, also the address clients are given; the system chooses the port.
    Frames of more than `max_frame_bytes` are neither accepted nor sent. With `tls` the link is
    encrypted, by default exactly when `host` is not this machine's loopback. `max_links` are served
    at once, each by one thread; further ones wait until one of these ends.

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
        max_links: int = MAX_LINKS,
    ) -> None:
        address = resolve(host)
        if tls is False and not address.is_loopback:
            raise ValueError(f"host={host!r} is not the loopback: its token must not travel bare")
        self._handler = handler
        self._ledger = ledger
        self._max_frame_bytes = max_frame_bytes
        self._context, certificate = None, ""
        if tls or not address.is_loopback:
            self._context, certificate = server_context(address)
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        try:
            self._listener = socket.create_server((str(address), 0), family=family)
        except OSError as error:
            raise LinkError(f"cannot listen at {host}: {one_line(error)}") from error
        port = self._listener.getsockname()[1]
        bracketed = f"[{address}]" if address.version == 6 else str(address)
        secret = secrets.token_urlsafe(32)
        self._endpoint = Endpoint(f"{bracketed}:{port}", secret, certificate)
        self._lock = threading.Lock()
        self._stopping = False
        self._open: set[socket.socket] = set()
        self._unadmitted: dict[socket.socket, float] = {}
        """By connection, when it is closed unless it has said who it is: by then, oldest first."""
        self._greeters = ThreadPoolExecutor(_GREETINGS, thread_name_prefix="link-greeter")
        # A thread goes on with the next client: what a thread computes first takes longer, by up
        # to half a step.
        self._workers = ThreadPoolExecutor(max_links, thread_name_prefix="link-client")
        # `stop` cannot wake a thread that waits for a client.
        self._listener.settimeout(_POLL)
        self._accepting = threading.Thread(target=self._accept, name="link-server", daemon=True)
        self._accepting.start()

    @property
    def endpoint(self) -> Endpoint:
        """Where clients find this server, and what admits them; see `Endpoint.of`."""
        return self._endpoint

    def stop(self) -> None:
        """End every link and return when no handler runs any more. Stopping twice is harmless."""
        with self._lock:
            self._stopping = True
            for connection in self._open:
                _shut(connection, socket.SHUT_RDWR)
        self._accepting.join()
        self._greeters.shutdown(wait=True)
        self._workers.shutdown(wait=True)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stopping:
            self._close_late()
            try:
                connection, _ = self._listener.accept()
                if self._context:
                    connection = self._context.wrap_socket(
                        connection, server_side=True, do_handshake_on_connect=False
                    )
            except TimeoutError:
                continue
            except OSError as error:
                # A client that has gone already, or more of them than there may be open files.
                _log.warning("the link's server could not accept a client: %s", error)
                time.sleep(_POLL)
                continue
            with self._lock:
                if self._stopping:
                    connection.close()
                    return
                self._open.add(connection)
                self._unadmitted[connection] = time.monotonic() + _PATIENCE
            self._greeters.submit(self._greet, connection)

    def _close_late(self) -> None:
        """Close connections that have not said in time who they are, or are too many."""
        with self._lock:
            late = time.monotonic()
            for place, (connection, until) in enumerate(self._unadmitted.items(), start=1):
                if until < late or place <= len(self._unadmitted) - _GREETINGS:
                    _shut(connection, socket.SHUT_RDWR)

    def _greet(self, connection: socket.socket) -> None:
        """Admit a client, and have it served by a worker; strangers never reach one."""
        stream = cast(Stream, connection.makefile("rb", _READ_AHEAD))
        with self._until_the_end_of(connection, stream) as link:
            connection.settimeout(_PATIENCE)
            _tune(connection)
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            caller = self._admitted(stream)
            with self._lock:
                del self._unadmitted[connection]
            connection.settimeout(None)
            self._workers.submit(self._serve, connection, stream, caller)
            link.pop_all()

    def _serve(self, connection: socket.socket, stream: Stream, caller: Caller) -> None:
        """Serve one client until either side ends the link."""
        with self._until_the_end_of(connection, stream):
            self._converse(connection, stream, caller)

    @contextlib.contextmanager
    def _until_the_end_of(
        self, connection: socket.socket, stream: Stream
    ) -> Iterator[contextlib.ExitStack]:
        """Tell a client why its link ends, and close the connection, unless others serve it."""
        try:
            with contextlib.ExitStack() as link:
                link.callback(self._forget, connection)
                link.enter_context(connection)
                link.enter_context(cast(BufferedReader, stream))
                try:
                    yield link
                except RefusalError as refusal:
                    _refuse(connection, refusal)
        except (EOFError, OSError) as error:
            # The client has gone, or never spoke this protocol.
            _log.debug("a link ended: %s", error)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.remove(connection)
            self._unadmitted.pop(connection, None)

    def _converse(self, connection: socket.socket, stream: Stream, caller: Caller) -> NoReturn:
        while True:
            reply = answer(self._handler, self._ledger, caller, stream, self._max_frame_bytes)
            _write(connection, reply)

    def _admitted(self, stream: Stream) -> Caller:
        """Read who opens the link, and check its token, before anything else is read."""
        try:
            announced = read(stream, _HELLO_BYTES).fields
        except FrameError as error:
            raise refused(error) from error
        try:
            caller = Caller(int(announced["link-client"][:_DIGITS]), announced["link-phase"])
        except (KeyError, ValueError) as error:
            raise refused("the link names no client and phase") from error
        token = announced.get("link-token", "")
        expected = token_of(self._endpoint.token, caller.client)
        if not hmac.compare_digest(token.encode(), expected.encode()):
            raise refused(f"missing or wrong token for client {caller.client}")
        return caller


def connect(endpoint: Endpoint, client: int, phase: str, codec: FloatCodec = "float32") -> Link:
    """Open a link to a server.

    Nothing is waited for here: a server that is absent or refuses this client shows as a
    `LinkError` of the first exchange.
    """
    return _SocketLink(endpoint, client, phase, codec)


class _SocketLink(Link):
    """A `Link` over one connection, which its first exchange opens."""

    def __init__(self, endpoint: Endpoint, client: int, phase: str, codec: FloatCodec) -> None:
        super().__init__(codec)
        self._endpoint = endpoint
        self._hello = encode(
            {},
            {"link-token": endpoint.token, "link-client": str(client), "link-phase": phase},
        )
        self._resources = contextlib.ExitStack()
        self._connection: socket.socket | None = None

    def close(self) -> None:
        """End the link. Closing twice does nothing more."""
        super().close()
        self._resources.close()

    def _send(self, request: Frame) -> ReceivedFrame:
        try:
            if self._connection is None:
                self._connection = self._resources.enter_context(self._opened())
                stream = self._connection.makefile("rb", _READ_AHEAD)
                self._stream = cast(Stream, self._resources.enter_context(stream))
                _write(self._connection, self._hello)
        except OSError as error:
            raise link_failed(f"the server cannot be reached: {error}") from error
        try:
            with contextlib.suppress(ConnectionError):
                # A server that refuses what is on its way has said so before it closed.
                _write(self._connection, request)
            return read(self._stream)
        except EOFError as error:
            raise link_failed("the server is gone") from error
        except OSError as error:
            raise link_failed(f"the server is gone: {error}") from error

    def _opened(self) -> socket.socket:
        host, _, port = self._endpoint.target.rpartition(":")
        address = host.strip("[]")
        connection = socket.create_connection((address, int(port)), timeout=_PATIENCE)
        _tune(connection)
        if self._endpoint.certificate:
            context = client_context(self._endpoint.certificate)
            connection = context.wrap_socket(connection, server_hostname=address)
        connection.settimeout(None)
        return connection


def _tune(connection: socket.socket) -> None:
    # A frame that is written in pieces does not wait between them.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _write(connection: socket.socket, frame: Frame) -> None:
    pieces = (bytes(frame),) if len(frame) <= _ONE_PIECE else frame.parts
    for piece in pieces:
        connection.sendall(piece)


def _refuse(connection: socket.socket, refusal: RefusalError) -> None:
    """Tell a client why its link ends.

    What it is still sending is read and thrown away: closing before would take from it, with what
    it sent, what it is told.
    """
    _write(connection, refusal.to_frame())
    _shut(connection, socket.SHUT_WR)
    ends = time.monotonic() + _PATIENCE
    while (left := ends - time.monotonic()) > 0:
        connection.settimeout(left)
        if not socket.socket.recv(connection, _READ_AHEAD):
            return


def _shut(connection: socket.socket, how: int) -> None:
    # Of the socket under TLS, which another thread may be reading from.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, how)
