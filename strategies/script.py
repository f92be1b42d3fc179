"""What a script yields and is sent: questions to clients, and their replies."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

from split_unlearning.transport.message import Message


@dataclass(frozen=True)
class Question:
    """What a script asks: one message to each of some clients, answered together.

    `kind` is the method of the NumPyClient that answers. Without the answers of an `optional`
    question the script goes on; else a client's silence ends it.
    """

    messages: Mapping[int, Message]
    kind: Literal["fit", "evaluate"] = "fit"
    optional: bool = False


@dataclass(frozen=True)
class Reply:
    """One client's answer."""

    client: int
    message: Message


Script = Generator[Question, list[Reply], None]
"""Yields questions, is sent the replies, sorted by client."""
