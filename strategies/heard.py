"""What clients say of themselves in their answers, beside what they were asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from split_unlearning.strategies.script import Reply


class ClientFailureError(RuntimeError):
    """A client did not answer a question; -1 where it is not known which.

    The text is one line that names the client, the phase, the action and the reason.
    """

    def __init__(self, text: str, client: int = -1) -> None:
        super().__init__(text)
        self.client = client


@dataclass
class Heard:
    """What was heard in the course of one script."""

    answered: set[int] = field(default_factory=set)
    absences: list[ClientFailureError] = field(default_factory=list)
    """Clients that did not answer, where the script could go on without them."""
    left_out: dict[int, int] = field(default_factory=dict)
    """How many samples each client left out."""
    forgotten: dict[int, bytes] = field(default_factory=dict)
    """Their salted hashes, see `unlearning.salted`."""
    first_slices: dict[int, int] = field(default_factory=dict)
    """From which of its slices on each client trained."""
    releases: dict[int, int] = field(default_factory=dict)
    """How many uploads of its training samples each client has made by now, if it counts them."""
    batches: int = 0
    """How many batches crossed the link."""
    batch_seconds: float = 0.0

    def note(self, reply: Reply) -> None:
        """Take down what one answer says."""
        client, fields = reply.client, reply.message.fields
        self.answered.add(client)
        if "left-out" in fields:
            self.left_out[client] = reply.message.integer("left-out")
        if isinstance(hashes := fields.get("forgotten"), bytes):
            self.forgotten[client] = hashes
        if "first-slice" in fields:
            self.first_slices[client] = reply.message.integer("first-slice")
        if "releases" in fields:
            self.releases[client] = reply.message.integer("releases")
        self.batches += int(fields.get("batches", 0))
        self.batch_seconds += float(fields.get("batch-seconds", 0.0))
