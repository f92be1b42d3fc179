"""A round trip over the link, beside the same bytes over a raw TCP socket.

    python benchmarks/link.py

The server is a process of its own, as the server segment is. It sends back the tensor that a frame
brings; the raw socket's server sends back as many bytes. Both are asked in turns, so that whatever
else the machine does falls on both; reported are medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from figures import say

from split_unlearning.models.memory import keep_freed_memory
from split_unlearning.transport.ledger import Ledger
from split_unlearning.transport.link import Endpoint
from split_unlearning.transport.socket_link import LinkServer, connect

LENGTH = struct.Struct("<Q")
SIZES = (2**15, 2**19, 2**22)
"""Bytes that go each way."""


def serve(answers: Connection) -> None:
    """Host both until the other side says that it is done."""
    _settle()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_echo, args=(listener,), daemon=True).start()
    with LinkServer(lambda caller, tensors, fields: (tensors, {}), Ledger()) as server:
        answers.send((listener.getsockname(), server.endpoint.of(0).to_fields()))
        answers.recv()


def _settle() -> None:
    """Set this process up as those of server and clients are."""
    torch.set_num_threads(1)
    keep_freed_memory()


def _echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while head := connection.recv(LENGTH.size, socket.MSG_WAITALL):
        body = bytearray(LENGTH.unpack(head)[0])
        _fill(connection, body)
        connection.sendall(head + body)


def _fill(connection: socket.socket, body: bytearray) -> None:
    rest = memoryview(body)
    while rest:
        rest = rest[connection.recv_into(rest) :]


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(sizes: list[int], times: int) -> dict[str, dict[str, float]]:
    """Return the medians by the number of bytes that go each way."""
    _settle()
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    address, fields = ours.recv()
    found: dict[str, dict[str, float]] = {}
    with (
        socket.create_connection(address) as plain,
        connect(Endpoint.from_fields(fields), 0, "learn") as link,
    ):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for size in sizes:
            smashed = torch.randn(64, size // 256)
            sent = LENGTH.pack(size) + smashed.numpy().tobytes()
            back = bytearray(LENGTH.size + size)

            def over_link(smashed: torch.Tensor = smashed) -> None:
                link.exchange({"smashed": smashed})

            def over_socket(sent: bytes = sent, back: bytearray = back) -> None:
                plain.sendall(sent)
                _fill(plain, back)

            pairs = [(seconds_of(over_link), seconds_of(over_socket)) for _ in range(times)]
            # The first find nothing warm.
            by_link, by_socket = (statistics.median(side) for side in zip(*pairs[5:], strict=True))
            found[f"{size} bytes"] = {
                "link_seconds": by_link,
                "socket_seconds": by_socket,
                "ratio": by_link / by_socket,
                "link_less_socket_seconds": by_link - by_socket,
            }
    ours.send(None)
    process.join()
    return found


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    say(measure(chosen.sizes, chosen.times), chosen.json)


if __name__ == "__main__":
    main()
