"""The link: frames exchanged, every batch, between one client and the server segment.

What any kind of link shares; `transport.socket_link` is the link over the network. A link is used
by one thread at a time.
"""

import base64
import hmac
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NoReturn, Self, cast

from torch import Tensor

from split_unlearning.models.training import FLOAT_CODECS, FloatCodec
from split_unlearning.transport.floats import pack, unpack
from split_unlearning.transport.frame import (
    Frame,
    FrameError,
    ReceivedFrame,
    Stream,
    encode,
    read,
)
from split_unlearning.transport.ledger import Ledger
from split_unlearning.transport.message import Scalar

MAX_FRAME_BYTES = 256 * 2**20

# The field of a frame that says what its numbers are rounded to; without it to nothing.
_CODEC = "rounded-to"

# The field of a reply that is none, but says why there is none and that the link ends.
_REFUSAL = "refusal"

_MAX_REASON = 1000

_log = logging.getLogger(__name__)


class LinkError(RuntimeError):
    """A link that cannot go on; the message is one line that says why."""


@dataclass(frozen=True)
class Caller:
    """Who sends a frame, as the link announced when it opened.

    Its token admits no other client. `phase` is that of the ledger.
    """

    client: int
    phase: str


Handler = Callable[
    [Caller, dict[str, Tensor], dict[str, str]], tuple[Mapping[str, Tensor], Mapping[str, str]]
]
"""What the server does with one frame: from its caller, tensors and fields to those of the reply.

Called from several threads at once, one for each link: the handler does its own locking. It gives
the reply's tensors away: they are sent from the memory where they are. A `ValueError` blames the
client, any other exception the server; either ends that link only.
"""


class Link(ABC):
    """A client's side of the link: frames, the clock and the end; how frames travel is its kind's.

    `codec` is what floating-point numbers are rounded to on the way, both ways.

    `seconds_waiting` is the time spent on sending and waiting for replies so far. Making frames of
    tensors is the client's own work and not counted.
    """

    def __init__(self, codec: FloatCodec = "float32") -> None:
        self.seconds_waiting = 0.0
        self._codec = codec
        self._closed = False

    def exchange(
        self, tensors: Mapping[str, Tensor], fields: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Send one frame, tensors and text by name, and return those of its reply.

        Raises
        ------
        FrameError
            If the tensors or fields cannot be sent; the link can go on.
        LinkError
            If the server refuses, fails or is gone; the link is then closed.
        """
        if self._closed:
            raise LinkError("the link is closed")
        named = dict(fields or {})
        if self._codec != "float32":
            named[_CODEC] = self._codec
        request = encode(pack(tensors, self._codec), named)
        started = time.perf_counter()
        try:
            reply = self._send(request)
            self.seconds_waiting += time.perf_counter() - started
            return _unpacked(reply)
        except ValueError as error:
            self.close()
            raise LinkError(f"the server's reply cannot be read: {error}") from error
        except BaseException:
            # Also after an interrupt: a late reply would be taken for the next request's.
            self.close()
            raise

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
    def _send(self, request: Frame) -> ReceivedFrame:
        """Return what is answered to a frame; raise LinkError, or FrameError of the answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where a link's server is and what admits a client; travels in a Flower fit instruction.

    `target` is ``host:port``, `certificate` the one to trust, in PEM; empty for a connection
    without TLS. `token` is a client's own, see `of`; on the server's side, what all are made from.
    """

    target: str
    token: str = field(repr=False)
    certificate: str = field(repr=False)

    def of(self, client: int) -> "Endpoint":
        """Return the endpoint for one client, whose token admits it under its own number alone."""
        return replace(self, token=token_of(self.token, client))

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


def token_of(secret: str, client: int) -> str:
    """Return a client's own token: HMAC-SHA-256 of its number, 43 characters."""
    mac = hmac.digest(secret.encode(), str(client).encode(), "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def own_link(fields: Mapping[str, Scalar], client: int) -> Mapping[str, Scalar]:
    """Return an instruction's fields for a client: a link in them is named with its own token."""
    if "link-token" not in fields:
        return fields
    return {**fields, **Endpoint.from_fields(fields).of(client).to_fields()}


class RefusalError(Exception):
    """Why the server ends a link, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason))

    def to_frame(self) -> Frame:
        """Return the frame that tells the client."""
        return encode({}, {_REFUSAL: str(self)})


def answer(
    handler: Handler, ledger: Ledger, caller: Caller, stream: Stream, max_frame_bytes: int
) -> Frame:
    """Read a request and return its reply, counting both: the server's side of one exchange.

    Raises
    ------
    EOFError
        If the client has ended the link.
    RefusalError
        If there is no reply.
    """
    try:
        request = read(stream, max_frame_bytes)
    except FrameError as error:
        raise refused(error) from error
    try:
        ledger.record(caller.client, caller.phase, up=request.size)
        codec = _codec_of(request.fields)
        returned = handler(caller, unpack(request.tensors), request.fields)
    except ValueError as error:
        raise refused(error) from error
    except Exception as error:  # noqa: BLE001 - whatever the handler raises must reach its client
        _refuse_own_fault(error)
    try:
        answered, said = returned
        reply = encode(pack(answered, codec), said)
    except (ValueError, TypeError, AttributeError) as error:
        _refuse_own_fault(error)
    size = len(reply)
    if size > max_frame_bytes:
        reason = f"reply frame of {size} bytes is larger than the limit of {max_frame_bytes}"
        raise RefusalError(f"the server failed: {reason}")
    ledger.record(caller.client, caller.phase, down=size, messages=1)
    return reply


def _codec_of(fields: dict[str, str]) -> FloatCodec:
    """Take from a frame's fields what its numbers are rounded to; its reply's are too."""
    codec = fields.pop(_CODEC, "float32")
    if codec not in FLOAT_CODECS:
        allowed = ", ".join(FLOAT_CODECS)
        raise ValueError(f"{_CODEC}={one_line(codec)!r} is not possible; allowed: {allowed}")
    return cast(FloatCodec, codec)


def _refuse_own_fault(error: Exception) -> NoReturn:
    # The client is told the type and message only; the place is for the server's log.
    _log.error("the link's handler failed", exc_info=error)
    raise RefusalError(f"the server failed: {type(error).__name__}: {error}") from error


def refused(reason: object) -> RefusalError:
    """Return the refusal of what a client sent."""
    return RefusalError(f"the server refused: {reason}")


def _unpacked(reply: ReceivedFrame) -> tuple[dict[str, Tensor], dict[str, str]]:
    if _REFUSAL in reply.fields:
        raise link_failed(reply.fields[_REFUSAL])
    return unpack(reply.tensors), reply.fields


def link_failed(reason: object) -> LinkError:
    """Return the error that a client sees when the server or the network ends its link."""
    return LinkError(f"the link failed: {one_line(reason)}")


def one_line(reason: object) -> str:
    """Return a reason as one line, short enough to travel as a status."""
    return " ".join(str(reason).split())[:_MAX_REASON]
