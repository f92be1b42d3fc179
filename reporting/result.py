"""The one form of a result: writes ``result.json``, reads it, checks it, publishes its schema.

    result = Result.read(Path("results/result.json"))
    result.phases[1].accuracy.retained
    result.to_frame()

Sizes are in bytes, times in seconds, shares from 0 to 1. A share is None where there is nothing to
have a share of. ``python -m split_unlearning.reporting.result`` prints the JSON schema.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from split_unlearning.foundations.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Final = 1

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
# SHA-256 of weights and buffers: names, shapes, types and every bit.
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Form(BaseModel):
    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Environment(_Form):
    """Where the run took place: what the last bits of a result may depend on."""

    python: str
    """Version of Python."""
    platform: str
    """Operating system and processor."""
    processor_count: Positive | None
    """How many processors the server's machine has; null if that is not known."""
    threads: Positive
    """Threads that each segment computed with."""
    precision: Text
    """What the server segment's passes, forward and backward, computed with."""
    server_device: Text
    """What the server segment computed on: cpu, or the name of a GPU."""
    client_devices: tuple[Text, ...] = ()
    """What the clients that answered computed on, in alphabetical order."""
    flwr: str
    """Version of Flower."""
    ray: str
    """Version of Ray."""
    torch: str
    """Version of PyTorch."""
    numpy: str
    """Version of NumPy."""


class Distribution(_Form):
    """Which client holds how much before anything is forgotten."""

    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    """The names of all labels."""
    train: Annotated[tuple[tuple[Count, ...], ...], Field(min_length=1)]
    """One row a client: how many samples of each label its training split holds."""

    @model_validator(mode="after")
    def _one_count_a_label(self) -> Self:
        if any(len(row) != len(self.labels) for row in self.train):
            raise ValueError("distribution does not have one count a label")
        return self


class Traffic(_Form):
    """What crossed between one client and the server."""

    bytes_up: Count
    """Bytes from the client to the server: contents of messages and frames of the link."""
    bytes_down: Count
    """Bytes from the server to the client, counted alike."""
    messages: Count
    """Exchanges, each a request and its reply."""
    transmission_seconds: Seconds
    """Seconds on the wire, both ways: computed from bytes at bandwidth-mbps, and latency-ms for
    each message."""
    transmission_seconds_up: Seconds
    """The same of the bytes from the client to the server alone."""


class _OfClient(_Form):
    client: Count
    """The client's number, from 0."""


class _Computed(_OfClient):
    requested: bool
    """Whether the phase's request is about samples of this client; while learning, whether any
    request is."""
    train_seconds: Seconds
    """Seconds that the client computed, without those spent waiting for the server."""
    pretrain_seconds: Seconds
    """Of train_seconds, those of pre-training alone, which the SplitWiper paper leaves out."""


# The fields of the last base stand first in the file: the client's number, then what crossed.
class ClientTraffic(Traffic, _OfClient):
    """What crossed between the server and the client of this number."""


class ClientCost(Traffic, _Computed):
    """What one phase cost one client."""

    evaluation: Traffic
    """What measuring accuracy after the phase cost; not part of the figures beside it."""


class Setup(_Form):
    """What it cost until every client had said which one it is."""

    clients: Annotated[tuple[ClientTraffic, ...], Field(min_length=1)]
    """One entry a client, in the order of their numbers."""


class Accuracy(_Form):
    """Shares of the clients' test samples that were predicted right."""

    unlearned: Share | None
    """Of what the phase's request is about, while learning of what any request is about; null for
    single samples by id."""
    retained: Share | None
    """Of what no request of the run is about."""
    per_label: Annotated[dict[str, Share | None], Field(min_length=1)]
    """By the label's name, of all clients; null where clients do not show the server which label
    is which."""
    per_client: Annotated[dict[Count, Share | None], Field(min_length=1)]
    """By the client's number, of all labels."""
    per_task: Annotated[dict[str, Share | None], Field(min_length=1)]
    """By the data set, of all clients that hold it: one, or with distribution different-tasks each
    of those joined."""


class EpochAccuracy(_Form):
    """Accuracy while a phase went on."""

    epoch: Positive
    """Epochs that were trained till then, over all stages of the phase."""
    unlearned: Share | None
    """As at the end of the phase."""
    retained: Share | None
    """As at the end of the phase."""


class ServerCost(_Form):
    """What one phase cost the server."""

    train_seconds: Seconds
    """Seconds that the server segment computed to train."""
    cache_bytes: Count
    """Bytes of the train activations and labels that the server keeps after the phase."""


class QuestionTime(_Form):
    """How long clients took to answer one kind of question."""

    times: Positive
    """How many questions asked for it, each of one or more clients."""
    seconds: Seconds
    """Seconds from each question to its last answer, added up."""


class LinkTime(_Form):
    """How long the batches took that crossed the link."""

    batches: Count
    """How many there were."""
    seconds: Seconds
    """Seconds that clients took for them, with the server's answers, added up over clients."""


class Timing(_Form):
    """Where the time of a phase went, seen from the server; without evaluation."""

    questions: dict[str, QuestionTime]
    """By the action that clients were asked for."""
    link: LinkTime
    """Of the batches that crossed the link."""


class Privacy(_Form):
    """A guarantee of differential privacy, for all that the run did until the end of a phase.

    A mechanism may say more of itself in further keys.
    """

    model_config = ConfigDict(extra="allow")

    mechanism: Text
    """What makes the guarantee: its name and what it was given."""
    unit: Text
    """What is protected: the guarantee is about inputs that differ in one such unit."""
    epsilon_per_release: Annotated[float, Field(gt=0)]
    delta_per_release: Annotated[float, Field(ge=0, lt=1)]
    releases: Count
    """How often the same unit was released, at most."""
    epsilon: Annotated[float, Field(ge=0)]
    """Of all releases of a unit together."""
    delta: Share
    """Of all releases of a unit together."""
    pure_epsilon: float | None = None
    """Epsilon of all releases together with a delta of 0, where the mechanism has such a bound."""
    uploads: dict[Count, Count] | None = None
    """By the client's number, how often it has uploaded its training samples."""
    covers: Annotated[tuple[Text, ...], Field(min_length=1)]
    """What the guarantee is about."""
    does_not_cover: tuple[Text, ...]
    """What the guarantee is not about, and against whom it does not hold."""


class LabelAttack(_Form):
    """What one attack made of the masked labels."""

    name: Text
    clusters: Count
    inclusive: Share | None
    """Share of real labels whose masked labels all lie in one cluster."""
    perfect: Share | None
    """Share of real labels whose masked labels are exactly one cluster."""


class LabelMatching(_Form):
    """Attacks that look for the masked labels of one real label, in what the server received."""

    attacks: Annotated[tuple[LabelAttack, ...], Field(min_length=1)]
    strongest: Text
    """Name of the attack with the largest perfect accuracy."""
    vanished_are_one_label: bool | None
    """Whether the masked labels that are gone since the phase before are exactly those of one real
    label; null if none is gone, or nothing is known of before."""


class Relearning(_Form):
    """How quickly a copy of the server segment learns again what was forgotten."""

    epochs: Count | None
    """After how many it was as good as before the request; null if it was not after most."""
    most: Count
    """How many were tried."""
    accuracy: Share
    """Share of the forgotten training samples that were predicted right before the request."""


class Digests(_Form):
    """Which weights there are after a phase: SHA-256 of names, shapes, types and every bit."""

    server: Digest
    clients: dict[Count, Digest]
    """By the client's number."""


class Phase(_Form):
    """Learning, or the answer to what was asked to be forgotten together."""

    task: Count
    """Its number among all that was ever asked for; 0 is learning."""
    phase: Literal["learn", "unlearn"]
    request: Text | None
    """The request as it was written; null while learning."""
    samples: Count
    """How many train samples the request means, of all clients; 0 while learning."""
    accuracy: Accuracy
    by_epoch: tuple[EpochAccuracy, ...] = ()
    """Accuracy while the phase went on, where the run measured it (score-every), in order."""
    clients: Annotated[tuple[ClientCost, ...], Field(min_length=1)]
    """What the phase cost each client, in the order of their numbers."""
    server: ServerCost
    timing: Timing
    absent: tuple[Text, ...]
    """One line for each client that did not answer and was not waited for, in the order it
    happened."""
    approximations: tuple[Text, ...]
    """What of a forgetting is approximate or incomplete, a line each, as its method says."""
    privacy: Privacy | None
    """What is guaranteed of what the server can learn of the labels; null if nothing is."""
    label_matching: LabelMatching | None = None
    """What the server can find out about masked labels; null where it was not measured."""
    membership: dict[str, Any] | None
    """What was measured of whether a sample's membership shows; null if nothing was."""
    relearn: Relearning | None = None
    """Null if it was not measured."""
    digests: Digests

    @model_validator(mode="after")
    def _learns_or_forgets(self) -> Self:
        learns = (self.request is None, self.samples == 0)
        if learns != (self.phase == "learn",) * 2:
            raise ValueError("only learning has neither a request nor samples to forget")
        return self


class Result(_Form):
    """What one run was asked to do, what it measured, phase by phase, and where it ran."""

    schema_version: Literal[1]
    """Version of this form; another form gets another number."""
    strategy: Text
    """How the run learned: a name, or package.module:Class."""
    unlearning: Text
    """How the run forgot: a name, or package.module:Class."""
    config: dict[str, bool | int | float | str]
    """Every key of the run config, as the run took it; together with clients it repeats the run.
    ``split-unlearning list`` says what each key means."""
    clients: Positive
    """How many clients took part."""
    environment: Environment
    distribution: Distribution | None = None
    setup: Setup
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    """Learning first, then one entry for each request, in the order of the run."""

    @model_validator(mode="after")
    def _learns_first(self) -> Self:
        if [phase.phase == "learn" for phase in self.phases] != [
            place == 0 for place in range(len(self.phases))
        ]:
            raise ValueError("the first phase learns, and no other does")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a ``result.json``.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            In one line, if it does not hold a result of this version.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path} holds no result: {_first_line(error)}") from error

    def write(self, path: Path) -> Path:
        """Write the file, whole or not at all, and return where it is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.to_json().encode())
        return path

    def to_json(self) -> str:
        """Return the text of ``result.json``."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return what ``result.json`` holds, as JSON's own types.

        A key that an older version did not write stays away.
        """
        return self.model_dump(mode="json", exclude_unset=True)

    def to_frame(self, by: Literal["client", "phase"] = "client") -> pd.DataFrame:
        """Return the measurements as a tidy table.

        Each row begins with the run (``strategy``, ``unlearning``, ``dataset``, ``seed``) and the
        phase (``task``, ``phase``, ``request``). Columns with ``seconds`` in their name are in
        seconds, those with ``bytes`` in bytes, those that end in ``accuracy`` are shares. Columns
        that begin with ``evaluation`` are the cost of measuring, which the others leave out. What
        meeting the clients cost (`setup`) is in neither table.

        Parameters
        ----------
        by
            What a row is: one client in one phase, with that client's accuracy and cost; or one
            phase, with its accuracies, the sum of all clients' costs, and the server's.
        """
        import pandas as pd

        about = {
            "strategy": self.strategy,
            "unlearning": self.unlearning,
            "dataset": self.config.get("dataset"),
            "seed": self.config.get("seed"),
        }
        rows = [
            about | {"task": phase.task, "phase": phase.phase, "request": phase.request} | row
            for phase in self.phases
            for row in (_client_rows(phase) if by == "client" else [_phase_row(phase)])
        ]
        return pd.DataFrame(rows)


def _client_rows(phase: Phase) -> list[dict[str, Any]]:
    return [
        {
            "client": cost.client,
            "requested": cost.requested,
            "accuracy": _number(phase.accuracy.per_client.get(cost.client)),
            **_costs(cost),
        }
        for cost in phase.clients
    ]


def _phase_row(phase: Phase) -> dict[str, Any]:
    costs = [_costs(cost) for cost in phase.clients]
    return {
        "samples": phase.samples,
        "forgotten_accuracy": _number(phase.accuracy.unlearned),
        "retained_accuracy": _number(phase.accuracy.retained),
        **{column: sum(cost[column] for cost in costs) for column in costs[0]},
        "server_train_seconds": phase.server.train_seconds,
        "server_cache_bytes": phase.server.cache_bytes,
    }


def _costs(cost: ClientCost) -> dict[str, float]:
    of_phase = cost.model_dump(exclude={"client", "requested", "evaluation"})
    return of_phase | {f"evaluation_{name}": size for name, size in cost.evaluation}


def _number(share: float | None) -> float:
    """Return what a column of floats holds: nothing is not a number."""
    return float("nan") if share is None else share


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    held = "" if first["type"] == "missing" else f", not {str(first['input'])[:40]!r}"
    return " ".join(f"{place or 'it'}: {first['msg']}{held}".split())


def schema() -> dict[str, Any]:
    """Return the JSON schema of ``result.json``, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:split-unlearning:result:{SCHEMA_VERSION}",
        **Result.model_json_schema(),
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
