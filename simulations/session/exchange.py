"""One exchange with Flower's nodes: send messages, wait for the answers, say what went wrong."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from split_unlearning.transport.link import one_line

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.5
# Of what looking takes, when many are waited for.
_PAUSES = 10


@dataclass(frozen=True)
class Trouble:
    """Why a node has not answered, in one line.

    It is fatal where it is not that client's trouble alone: when a worker of the simulation has
    died, Flower goes on giving messages to it.
    """

    reason: str
    fatal: bool = False


def exchange(
    grid: Grid, messages: list[Message], timeout: float
) -> dict[int, RecordDict | Trouble]:
    """Send at most one message to each node; return its answer, or why there is none, by node.

    Not ``Grid.send_and_receive``: that looks for answers every 0.1 seconds in a simulation and
    every 3 in a deployment, which a turn of a few batches would spend waiting.

    After `timeout` seconds without any answer, nodes that are still silent are given up. It is not
    the time for all together: of many clients, only as many work at a time as there are workers.
    """
    late = Trouble(f"no answer within {timeout:g} seconds (round-timeout)")
    replies: dict[int, RecordDict | Trouble] = {}
    started = time.monotonic()
    waiting = set(grid.push_messages(messages)) if messages else set()
    # An answer that Flower writes itself does not come from the node that was asked.
    nodes = {sent.metadata.message_id: sent.metadata.dst_node_id for sent in messages}
    for message_id in nodes.keys() - waiting:
        replies[nodes[message_id]] = Trouble("Flower takes no message for its node")
    waiting &= nodes.keys()
    while waiting:
        looked = time.monotonic()
        replied = list(grid.pull_messages(waiting))
        looking = time.monotonic() - looked
        for reply in replied:
            started = time.monotonic()
            waiting.discard(reply.metadata.reply_to_message_id)
            node_id = nodes[reply.metadata.reply_to_message_id]
            replies[node_id] = _trouble(reply) if reply.has_error() else reply.content
        waited = time.monotonic() - started
        if waited > timeout:
            break
        if waiting:
            # So often that waiting takes a twentieth longer at most. Looking for a thousand answers
            # takes as long as computing one of them: waiting leaves the clients the processor.
            pause = max(waited / 20, looking * _PAUSES if len(waiting) > 1 else 0, _SHORTEST_PAUSE)
            time.sleep(min(pause, _LONGEST_PAUSE))
    return {**dict.fromkeys((nodes[message_id] for message_id in waiting), late), **replies}


def _trouble(reply: Message) -> Trouble:
    """Read the text of an error.

    What a ClientApp raised comes as Ray's traceback of Flower's exception, which ends with the
    message; anything else as the exception's type and text, of which the beginning tells enough.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(reply.error.reason))
    _, raised, message = plain.rpartition("occurred. Message: ")
    if raised:
        return Trouble(one_line(message.removesuffix("'>")))
    text = one_line(plain.partition("\n")[0])
    if reply.error.code == ErrorCode.UNKNOWN:
        return Trouble(f"Flower lost its worker: {text}", fatal=True)
    return Trouble(text)
