"""A protocol as a script: a generator that yields what to ask of whom and is sent the answers.

A protocol is one class with `learn` and `unlearn`, which read like the paper's pseudo-code. Here is
what these are written with, and how what was learned is scored; how Flower comes to ask what a
script yields is in `strategies.scripted`.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from flwr.common import Scalar

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import (
    Options,
    Owner,
    Settings,
    Value,
    not_negative,
    setting,
)
from split_unlearning.models.network import Part
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.heard import Heard
from split_unlearning.strategies.script import Question, Reply, Script
from split_unlearning.strategies.scripted import ScriptedStrategy
from split_unlearning.strategies.server.gradient_noise import GradientNoise
from split_unlearning.strategies.server.part import ServerPart
from split_unlearning.strategies.server.scoring import Scored, Scoring
from split_unlearning.strategies.server.segment import ServerSegment
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.transport.floats import unpack_arrays
from split_unlearning.transport.message import Array, Message
from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.methods import Retrain, UnlearningMethod
from split_unlearning.unlearning.request import Request


@dataclass(frozen=True, kw_only=True)
class StrategySetting(Settings):
    """What a strategy works with.

    `options` is the run config with the settings of plug-ins. `num_clients` counts those that were
    dropped too, by default none; `present` are those of the clients that can be reached, by default
    all; `report` takes one line that says how far the script is.
    """

    clients: Sequence[int]
    server: ServerSegment
    training: TrainingSettings
    method: UnlearningMethod
    num_clients: int | None = None
    score_every: int = setting(
        not_negative(
            0, "epochs of training after which accuracy is measured too; 0 for at the end alone"
        )
    )
    options: Mapping[str, Value] = field(default_factory=dict)
    present: Sequence[int] | None = None
    report: Callable[[str], None] = lambda _: None


class SplitStrategy(Owner, ScriptedStrategy):
    """Base of every protocol.

    A protocol writes `learn` and `unlearn` as scripts and names the class of its clients in
    `client`, as ``package.module:Class``, a subclass of ``clients.base.SplitClient``. In `methods`
    it names the kinds of unlearning method that it can carry out, in `own_options` settings of its
    own (their values are `options`), in `server_part` what of the network the server holds, in
    `server_parts` the classes of parts that it brings to the server segment
    (`strategies.server.part`); whether its clients count their test samples label by label for
    everybody to see is `counts_by_label`, and whether all of them train one client segment, or
    copies that are averaged, `one_client_segment`.
    """

    client: ClassVar[str]
    server_part: ClassVar[Part] = "server"
    server_parts: ClassVar[tuple[type[ServerPart], ...]] = ()
    methods: ClassVar[tuple[type[UnlearningMethod], ...]] = (Retrain,)
    counts_by_label: ClassVar[bool] = True
    one_client_segment: ClassVar[bool] = False

    def __init__(self, setting: StrategySetting) -> None:
        super().__init__()
        self.clients = list(setting.clients)
        self.server = setting.server
        self.training = setting.training
        self.method = setting.method
        self.setting = setting
        self.options = self.filled(setting.options)
        self.present = self.clients if setting.present is None else list(setting.present)
        self.redone: dict[str, object] = {}
        """What the last forgetting trained again: shards, slices."""
        self.approximations: list[str] = []
        """What of the last forgetting is approximate or incomplete, a line each."""
        self.groups: dict[int, list[list[int]]] = {}
        """By client, groups of labels that a score counts together, where it counts no label."""
        self.progress = setting.report
        self._uploads: dict[Scored, dict[int, str | None]] = {"test": {}, "audit": {}}
        self.real_of: Ids | None = None
        """The real label of each masked one, int64, shape (E,), where attacks are to be scored."""
        self.audited: dict[int, Message] = {}
        """By client, what it answered the last audit, see `strategies.audit`."""
        self.scores: dict[int, Message] = {}
        self.scores_by_epoch: dict[int, dict[int, Message]] = {}
        """The answers to `score` in the last script, by the number of epochs trained till then."""
        self._epochs = 0

    # What a protocol writes.

    @abstractmethod
    def learn(self) -> Script:
        """Learn from every client's data."""

    @abstractmethod
    def unlearn(self, requests: Mapping[int, Request]) -> Script:
        """Forget what the requests mean, each said by the client that holds the samples."""

    @classmethod
    def check_options(cls, options: Options, method: UnlearningMethod) -> None:
        """Refuse settings that do not go together, before anything starts.

        The options are the run config and the settings of plug-ins.

        Raises
        ------
        UserError
            In one line that names the key, the value and what is allowed.
        """

    @classmethod
    def check_clients(cls, options: Options, num_clients: int) -> None:
        """Refuse settings that do not fit the number of clients; as `check_options`."""

    @classmethod
    def check_inputs(cls, options: Options, inputs: str) -> None:
        """Refuse clients whose inputs have several shapes; as `check_options`.

        `inputs` says in words which inputs there are.
        """
        if cls.one_client_segment:
            allowed = f"one whose clients keep segments of their own ({inputs})"
            raise refuse("strategy", options["strategy"], allowed)

    @classmethod
    def noise_at_cut(cls, options: Options) -> GradientNoise | None:
        """Return the noise that the server adds to the gradients that it returns, by default none.

        Errors are those of `check_options`.
        """
        return None

    @classmethod
    def can_drop(cls, method: type[UnlearningMethod]) -> bool:
        """Say whether `drop` can be carried out with an unlearning method."""
        return cls.drop is not SplitStrategy.drop

    @classmethod
    def needed_to_drop(cls, clients: Sequence[int]) -> list[int]:
        """Return which of the clients that are left are asked something by `drop`."""
        return []

    def drop(self, clients: Collection[int]) -> Script:
        """Forget all that some clients ever gave, without their help; few protocols can.

        Raises
        ------
        UserError
            If this one cannot.
        """
        raise UserError(
            f"{type(self).__name__} cannot drop a client: what it gave has gone into everybody's "
            "training; allowed: a strategy that keeps it apart, such as splitwiper"
        )

    @classmethod
    def can_miss_clients(cls, method: type[UnlearningMethod]) -> bool:
        """Say whether forgetting can go on while clients that ask for nothing are away.

        Where all of them are needed, that is. Those that are there are `reachable`.
        """
        return False

    @property
    def skips_absent(self) -> bool:
        """Whether an epoch goes on without a client that does not answer."""
        return False

    @property
    def reachable(self) -> list[int]:
        """The clients that take part and can be reached, in order."""
        return [client for client in self.clients if client in self.present]

    @classmethod
    def needed(cls, clients: Sequence[int], asking: Collection[int]) -> list[int]:
        """Return which of all clients are asked something when some of them ask to forget."""
        return list(clients)

    def begin(self, script: Script, phase: str) -> None:
        """Run a script up to its first question, as `ScriptedStrategy.begin`."""
        if phase != "evaluate":
            self.approximations, self.scores_by_epoch, self._epochs = [], {}, 0
        super().begin(script, phase)

    # What a protocol asks with.

    def commit(self, clients: Iterable[int], attempt: str) -> Script:
        """Have clients make what an attempt changed with them the state that they keep."""
        yield self.ask(clients, "commit", commit=attempt)

    def ask(self, clients: Iterable[int], action: str, **fields: Scalar) -> Question:
        """Ask clients to act; `fields` say how, underscores standing for dashes."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return Question({client: Message(action, dict(named)) for client in clients})

    def ask_to_forget(self, requests: Mapping[int, Request], action: str) -> Question:
        """Ask each client to act on its request, which it reads with ``forget_samples``."""
        return Question(
            {
                client: Message(action, {"request": request.to_field()})
                for client, request in requests.items()
            }
        )

    def collect(self, question: Question) -> Generator[Question, list[Reply], list[int]]:
        """Ask for an upload, and go on asking the clients that have more chunks to send.

        Use as ``yield from self.collect(self.ask(clients, "pretrain"))``. Each chunk goes to the
        server segment as it arrives, so that no more than one chunk a client is in memory here.

        Returns
        -------
        list of int
            The clients whose upload is complete.
        """
        replies = yield question
        chunk = 0
        complete = []
        while replies:
            self._receive(replies)
            chunk += 1
            chunks = {reply.client: reply.message.integer("chunks") for reply in replies}
            complete += [client for client in chunks if chunks[client] <= chunk]
            unfinished = [client for client in chunks if chunks[client] > chunk]
            what = str(replies[0].message.fields["upload"])
            following = self.ask(unfinished, "upload", upload=what, chunk=chunk)
            replies = yield replace(following, optional=question.optional)
        return complete

    def _receive(self, replies: list[Reply]) -> None:
        """Hand one chunk of each client to the server segment."""
        for reply in replies:
            message, tensors = reply.message, unpack_arrays(reply.message.tensors)
            client, chunk, smashed = reply.client, message.integer("chunk"), tensors["smashed"]
            if message.fields["upload"] == "train":
                labels, ids = tensors["labels"], tensors["ids"]
                self.server.call(Shards.add, client, chunk, smashed, labels, ids)
            else:
                split: Scored = "audit" if message.fields["upload"] == "audit" else "test"
                self.server.call(Scoring.add, split, client, chunk, smashed)

    def score(self, present: Sequence[int] | None = None) -> Script:
        """Measure accuracy on each client's own test split, with Concat(F^k, F^s).

        Clients whose segment changed since they last did so upload their test activations; the
        server predicts from what it has of every client; each client that is `present`, by default
        those of the setting, scores its own predictions. A test label stays with its client; counts
        of samples and of hits by label are its answer.
        """
        present = self.present if present is None else present
        uploaded = yield from self.refresh("test", present)
        self.scores = {}
        replies = yield Question(
            {
                client: Message("score", self._grouping(client), self.predictions_for(client))
                for client in uploaded
            },
            kind="evaluate",
            optional=self.skips_absent,
        )
        self.scores = {reply.client: reply.message for reply in replies}

    def end_epoch(self, hand_out: Callable[[], Question] | None = None) -> Script:
        """Measure accuracy after an epoch of training, if the run is to; call it after each.

        It changes nothing of what is trained, and counts as evaluation. `hand_out` asks clients
        first to take what they do not hold yet of the model so far.
        """
        self._epochs += 1
        every = self.setting.score_every
        if not every or self._epochs % every:
            return
        phase, heard = self.phase, self.heard
        self.phase, self.heard = "evaluate", Heard()
        if hand_out is not None:
            yield hand_out()
        yield from self.score()
        self.scores_by_epoch[self._epochs] = self.scores
        self.phase, self.heard = phase, heard

    def refresh(
        self, split: Scored, present: Sequence[int]
    ) -> Generator[Question, list[Reply], list[int]]:
        """Have clients whose segment changed since they last did so upload a split to be scored.

        Returns
        -------
        list of int
            Those of `present` of whom the server now has it.
        """
        uploads = self._uploads[split]
        # A client uploads again that did not say what it holds, or may have changed it unheard.
        digests = {client: self.client_digests.get(client) for client in present}
        changed = [
            client
            for client in present
            if digests[client] is None or digests[client] != uploads.get(client)
        ]
        for client in changed:
            uploads.pop(client, None)
        ask_upload = self.ask(changed, "upload", upload=split, chunk=0)
        came = yield from self.collect(replace(ask_upload, optional=self.skips_absent))
        uploads |= {client: digests[client] for client in came}
        return [client for client in present if client in uploads]

    def _grouping(self, client: int) -> dict[str, Scalar]:
        """Return, as a field of the question, the groups of labels that are counted together."""
        return {} if self.counts_by_label else {"groups": json.dumps(self.groups.get(client, []))}

    def predictions_for(self, client: int) -> dict[str, Array]:
        """Return what a client scores: the label that the server predicts for each test sample."""
        return {"predictions": self.server.call(Scoring.predict, client)}

    def outputs_for(self, client: int, split: Scored) -> dict[str, Array]:
        """Return what a client makes probabilities of real labels of, for samples of its own.

        By tensor, one row a sample; here those probabilities. A strategy that overrides
        `predictions_for` and can be audited overrides this too.
        """
        return {"probabilities": self.server.call(Scoring.probabilities, client, split)}
