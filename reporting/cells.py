"""One cell of a benchmark: what a run measured, and what was computed from it afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Json = Mapping[str, Any]
Roc = tuple[tuple[float, ...], tuple[float, ...]]
"""False-positive and true-positive rates, by rising threshold."""

# Where metrics.json holds an attack on membership, by the model that is attacked.
_ATTACKED = {
    "before": "membership_before",
    "after": "membership",
    "reference": "membership_reference",
    "pair": "membership_pair",
}
# What is read of such an attack, by its name in metrics.json.
_RATES = {
    "hit_rate": "hit_rate",
    "false_positives": "false_positive_rate",
    "auc": "auc",
    "tpr_at_low_fpr": "tpr_at_1_percent_fpr",
    "members": "members",
    "non_members": "non_members",
}


@dataclass(frozen=True)
class ClientCost:
    """What a phase cost one client: seconds that it computed, bytes, messages.

    `wire_up` are seconds of its upload on the wire; `pretraining` is part of `seconds`.
    """

    client: int
    requested: bool
    seconds: float
    bytes_up: float
    bytes_down: float
    messages: float
    wire_up: float | None
    pretraining: float | None = None

    @property
    def split_seconds(self) -> float:
        """Seconds without those of pre-training, where these are known."""
        return self.seconds - (self.pretraining or 0.0)


COSTS = (
    "seconds",
    "pretraining",
    "split_seconds",
    "bytes_up",
    "bytes_down",
    "wire_up",
    "messages",
)


@dataclass(frozen=True)
class Phase:
    """Learning (task 0), or one forgetting.

    `measures` are all numbers of the phase by name, which tables, figures, claims and TensorBoard
    read: ``forgotten`` and ``retained`` (accuracies), ``data set/NAME`` (accuracy where clients
    hold several), ``seconds/requesting`` and ``seconds/other`` (means of `COSTS` over clients),
    ``server_seconds``, ``membership/after/auc``, ``divergence/forgotten`` (bits),
    ``relearn/epochs``, ``backdoor/success``, ``matching/ATTACK/perfect``. A measure that was not
    taken is not there. `by_epoch` holds accuracies by name and epoch, `rocs` an attack's rates by
    the model that was attacked.
    """

    task: int
    request: str
    clients: tuple[ClientCost, ...]
    measures: Mapping[str, float] = field(default_factory=dict)
    by_epoch: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    rocs: Mapping[str, Roc] = field(default_factory=dict)

    @property
    def pretraining_is_apart(self) -> bool:
        """Whether clients' pre-training was measured apart."""
        return all(one.pretraining is not None for one in self.clients)

    def named(self, start: str) -> dict[str, float]:
        """Return the measures whose name begins so, by the rest of their name."""
        return {
            name.removeprefix(start): value
            for name, value in self.measures.items()
            if name.startswith(start)
        }


@dataclass(frozen=True)
class Distribution:
    """Who holds how much: training samples of each client (row) and label (column)."""

    labels: tuple[str, ...]
    train: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Cell:
    """One run.

    `coordinates` are the run-config keys and values that say where in the grid it stands, `config`
    all of the run's. `reference` is the id of the cell that was retrained without what this one
    forgot.
    """

    id: str
    coordinates: Json
    clients: int
    seed: int
    config: Json
    environment: Json
    phases: tuple[Phase, ...]
    labels: tuple[str, ...] = ()
    distribution: Distribution | None = None
    reference: str | None = None

    def phase(self, task: int) -> Phase | None:
        """Return the phase with this number, None if there is none."""
        return next((phase for phase in self.phases if phase.task == task), None)

    def measure(self, task: int, name: str) -> float | None:
        """Return a measure of a phase, None if it was not taken."""
        phase = self.phase(task)
        return None if phase is None else phase.measures.get(name)

    def setting(self, key: str) -> Any:
        """Return a key's value: where the cell stands in the grid, or what the run was given."""
        return self.coordinates.get(key, self.config.get(key))


def read_cell(description: Json, result: Json, metrics: Json | None) -> Cell:
    """Return a finished cell from ``cell.json``, ``result.json`` and ``metrics.json``.

    Raises
    ------
    LookupError, TypeError, ValueError
        If they do not hold what such files hold.
    """
    computed = {int(phase["task"]): phase for phase in (metrics or {}).get("phases", [])}
    phases = tuple(
        _phase(phase, computed.get(int(phase.get("task", place)), {}), place)
        for place, phase in enumerate(result["phases"])
    )
    config = dict(result["config"])
    per_label = (result["phases"][0].get("accuracy") or {}).get("per_label") or {}
    return Cell(
        id=str(description["id"]),
        coordinates=dict(description["coordinates"]),
        clients=int(description.get("clients", result["clients"])),
        seed=int(description["seed"]),
        config=config,
        environment=dict(result.get("environment") or {}),
        phases=phases,
        labels=tuple(map(str, per_label)),
        distribution=_distribution(result.get("distribution")),
        reference=(metrics or {}).get("reference"),
    )


def _phase(measured: Json, computed: Json, place: int) -> Phase:
    clients = tuple(_cost(client) for client in measured["clients"])
    attacked = {name: computed[key] for name, key in _ATTACKED.items() if computed.get(key)}
    rocs = {name: _roc(found.get("roc")) for name, found in attacked.items()}
    numbers = {
        name: number(value)
        for name, value in (
            *_accuracies(measured["accuracy"]),
            *_mean_costs(clients),
            ("server_seconds", (measured.get("server") or {}).get("train_seconds")),
            *_matching(measured.get("label_matching") or {}),
            *(
                (f"membership/{name}/{rate}", found.get(key))
                for name, found in attacked.items()
                for rate, key in _RATES.items()
            ),
            *(
                (f"{kind}/{name}", value)
                for kind in ("divergence", "relearn", "backdoor")
                for name, value in (computed.get(kind) or {}).items()
            ),
        )
    }
    return Phase(
        task=int(measured.get("task", place)),
        request=str(measured["request"] or ""),
        clients=clients,
        measures={name: value for name, value in numbers.items() if value is not None},
        by_epoch={
            name: {
                int(one["epoch"]): value
                for one in measured.get("by_epoch") or ()
                if (value := number(one.get(key))) is not None
            }
            for name, key in (("forgotten", "unlearned"), ("retained", "retained"))
        },
        rocs={name: roc for name, roc in rocs.items() if roc[0]},
    )


def _accuracies(accuracy: Json) -> Iterator[tuple[str, object]]:
    yield "forgotten", accuracy.get("unlearned")
    yield "retained", accuracy.get("retained")
    of_tasks = accuracy.get("per_task") or {}
    # The accuracy of a single data set would be what the accuracies say already.
    if len(of_tasks) > 1:
        yield from ((f"data set/{name}", value) for name, value in of_tasks.items())


def _mean_costs(clients: tuple[ClientCost, ...]) -> Iterator[tuple[str, object]]:
    for whose, requested in (("requesting", True), ("other", False)):
        members = [one for one in clients if one.requested is requested]
        for name in COSTS:
            found = [cost for one in members if (cost := getattr(one, name)) is not None]
            yield f"{name}/{whose}", fmean(found) if found else None
        if members:
            yield f"bytes/{whose}", fmean(one.bytes_up + one.bytes_down for one in members)


def _matching(matching: Json) -> Iterator[tuple[str, object]]:
    """Yield what each attack on masked labels reached, and the strongest of them."""
    attacks = {
        str(one["name"]): {kind: number(one.get(kind)) for kind in ("perfect", "inclusive")}
        for one in matching.get("attacks") or ()
    }
    measured = [one for one in attacks.values() if one["perfect"] is not None]
    if measured:
        strongest = max(measured, key=lambda one: (one["perfect"] or 0, one["inclusive"] or 0))
        attacks = {**attacks, "strongest": strongest}
    for name, found in attacks.items():
        yield from ((f"matching/{name}/{kind}", share) for kind, share in found.items())
    vanished = matching.get("vanished_are_one_label")
    yield "vanished_are_one_label", None if vanished is None else float(vanished)


def _cost(client: Json) -> ClientCost:
    return ClientCost(
        client=int(client["client"]),
        requested=bool(client["requested"]),
        seconds=float(client["train_seconds"]),
        bytes_up=float(client["bytes_up"]),
        bytes_down=float(client["bytes_down"]),
        messages=float(client["messages"]),
        wire_up=number(client.get("transmission_seconds_up")),
        pretraining=number(client.get("pretrain_seconds")),
    )


def _roc(found: Json | None) -> Roc:
    known = found or {}
    false_positives = tuple(map(float, known.get("false_positive_rate") or ()))
    true_positives = tuple(map(float, known.get("true_positive_rate") or ()))
    if len(false_positives) != len(true_positives):
        raise ValueError("the two rates of roc are not of one length")
    return false_positives, true_positives


def _distribution(found: Json | None) -> Distribution | None:
    if not found:
        return None
    labels = tuple(map(str, found["labels"]))
    train = tuple(tuple(int(count) for count in row) for row in found["train"])
    if any(len(row) != len(labels) for row in train):
        raise ValueError("distribution does not have one count a label")
    return Distribution(labels, train)


def number(value: object) -> float | None:
    """Return a number that was measured; None for null, and for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
