"""What clients say of themselves in their answers, beside what they were asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from split_unlearning.strategies.script import Reply


class ClientFailureError(RuntimeError):
    """A client did not answer a question.

    Parameters
    ----------
    text : str
        One line that names the client, the phase, the action and the reason.
    client : int
        Who it was; -1 if that is not known.
    """

    def __init__(self, text: str, client: int = -1) -> None:
        super().__init__(text)
        self.client = client


@dataclass
class Heard:
    """What was heard in the course of one script.

    Parameters
    ----------
    answered : set of int
        The clients that answered.
    absences : list of ClientFailureError
        Those that did not, where the script could go on without them.
    left_out : dict of int to int
        How many samples each client left out.
    forgotten : dict of int to bytes
        Their salted hashes, see `unlearning.salted`.
    first_slices : dict of int to int
        From which of its slices on each client trained.
    releases : dict of int to int
        How many uploads of its training samples each client has made by now, where it counts them.
    batches : int
        How many batches crossed the link.
    batch_seconds : float
        How long they took, in seconds.
    """

    answered: set[int] = field(default_factory=set)
    absences: list[ClientFailureError] = field(default_factory=list)
    left_out: dict[int, int] = field(default_factory=dict)
    forgotten: dict[int, bytes] = field(default_factory=dict)
    first_slices: dict[int, int] = field(default_factory=dict)
    releases: dict[int, int] = field(default_factory=dict)
    batches: int = 0
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
