"""A client that speaks the link's frames without our own client's code, and a server."""

import json
import socket

import safetensors.torch
import torch

from split_unlearning.transport.frame import decode, encode
from split_unlearning.transport.socket_link import connect

LIMIT = 4096
TIMEOUT = 30.0


def double(caller, tensors, fields):
    """A server that computes and says who asked."""
    return {name: tensor * 2 for name, tensor in tensors.items()}, {
        **fields,
        "caller": f"{caller.client} {caller.phase}",
    }


class Foreign:
    """A client that sends whatever bytes it likes, without our own client's code."""

    def __init__(self, endpoint, **changed):
        host, port = endpoint.target.split(":")
        self.connection = socket.create_connection((host, int(port)), timeout=TIMEOUT)
        hello = {"link-token": endpoint.of(0).token, "link-client": "0", "link-phase": "learn"}
        hello |= {f"link-{key}": value for key, value in changed.items()}
        said = {key: value for key, value in hello.items() if value is not None}
        self.connection.sendall(safetensors.torch.save({}, said))

    def replies(self, *frames):
        """Send frames, and return those that come back until the server ends the link."""
        for sent in frames:
            self.connection.sendall(sent)
        self.connection.shutdown(socket.SHUT_WR)
        stream, replies = self.connection.makefile("rb"), []
        with stream:
            while len(stream.peek()):
                header = stream.read(int.from_bytes(start := stream.read(8), "little"))
                ends = [one["data_offsets"][1] for one in tensors_in(header).values()]
                replies.append(start + header + stream.read(max(ends, default=0)))
        return replies

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


def tensors_in(header):
    return {name: one for name, one in json.loads(header).items() if name != "__metadata__"}


def refusal(foreign, *frames):
    *_, last = foreign.replies(*frames)
    return decode(last).fields["refusal"]


def sent(tensors, fields=None):
    return bytes(encode(tensors, fields))


def still_serves(server):
    with connect(server.endpoint.of(9), 9, "evaluate") as link:
        return link.exchange({"x": torch.ones(1)})[0]["x"].item() == 2.0
