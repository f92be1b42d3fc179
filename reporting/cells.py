"""One cell of a benchmark: what a run measured, and what was computed from it afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class ClientCost:
    """What a phase cost one client.

    Seconds are those that it computed, `wire_up` those of its upload on the wire; sizes are bytes.
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


@dataclass(frozen=True)
class Epoch:
    """Accuracies after one epoch of the server's training."""

    epoch: int
    forgotten: float | None
    retained: float | None


@dataclass(frozen=True)
class Attack:
    """What one attack on masked labels found; shares of real labels."""

    name: str
    inclusive: float | None
    perfect: float | None


@dataclass(frozen=True)
class Membership:
    """What an attack could tell of who was in the training data; `roc` holds FPR and TPR."""

    hit_rate: float | None
    false_positives: float | None
    auc: float | None
    tpr_at_low_fpr: float | None
    members: float | None
    non_members: float | None
    roc: tuple[tuple[float, ...], tuple[float, ...]] | None


@dataclass(frozen=True)
class Phase:
    """Learning (task 0), or one forgetting, with what was computed of it.

    `membership` has the keys ``after``, ``before``, ``reference`` and ``pair``, `divergence`
    ``forgotten``, ``retained`` and ``test``; what was not measured is not there. `by_data_set` is
    accuracy by the name of the data set, where clients hold several.
    """

    task: int
    request: str
    forgotten: float | None
    retained: float | None
    clients: tuple[ClientCost, ...]
    server_seconds: float | None
    by_data_set: Mapping[str, float] = field(default_factory=dict)
    by_epoch: tuple[Epoch, ...] = ()
    attacks: tuple[Attack, ...] = ()
    vanished_are_one_label: bool | None = None
    membership: Mapping[str, Membership] = field(default_factory=dict)
    divergence: Mapping[str, float] = field(default_factory=dict)
    relearn: Mapping[str, float] = field(default_factory=dict)
    backdoor: Mapping[str, float] = field(default_factory=dict)

    def mean_cost(self, name: str, requested: bool) -> float | None:
        """Return the mean of a cost over the clients that asked, or over all others.

        Parameters
        ----------
        name : str
            Of an attribute of `ClientCost`.
        requested : bool
            Whose.
        """
        found = [getattr(one, name) for one in self.clients if one.requested is requested]
        measured = [value for value in found if value is not None]
        return fmean(measured) if measured else None

    @property
    def apart(self) -> bool:
        """Whether clients' pre-training was measured apart."""
        return all(one.pretraining is not None for one in self.clients)

    @property
    def requesting_bytes(self) -> float | None:
        """Bytes both ways, of a client that asked (mean)."""
        up, down = self.mean_cost("bytes_up", True), self.mean_cost("bytes_down", True)
        return None if up is None or down is None else up + down


@dataclass(frozen=True)
class Distribution:
    """Who holds how much: training samples of each client (row) and label (column)."""

    labels: tuple[str, ...]
    train: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Cell:
    """One run.

    Parameters
    ----------
    id : str
        Its folder's name.
    coordinates : mapping
        Where in the grid it stands: run-config keys and their values.
    clients : int
        How many took part.
    seed : int
        Of the run.
    config : mapping
        Every key of the run.
    environment : mapping
        Where it ran.
    phases : sequence of Phase
        Learning first.
    labels : sequence of str
        Names of all labels, where the run tells them apart; else empty.
    distribution : Distribution or None
        Who holds how much; None where the run did not say.
    reference : str or None
        The cell that was retrained without what this one forgot.
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

    def setting(self, key: str) -> Any:
        """Return a key's value: where the cell stands in the grid, or what the run was given."""
        return self.coordinates.get(key, self.config.get(key))


def read_cell(description: Json, result: Json, metrics: Json | None) -> Cell:
    """Return a finished cell.

    Parameters
    ----------
    description, result, metrics : mapping
        ``cell.json``, ``result.json`` and ``metrics.json``; None where the last is missing.

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
    accuracy = measured["accuracy"]
    matching = measured.get("label_matching") or {}
    of_tasks = accuracy.get("per_task") or {}
    return Phase(
        task=int(measured.get("task", place)),
        request=str(measured["request"] or ""),
        forgotten=number(accuracy.get("unlearned")),
        retained=number(accuracy.get("retained")),
        clients=tuple(_cost(client) for client in measured["clients"]),
        server_seconds=number((measured.get("server") or {}).get("train_seconds")),
        # Of a single one it would be what the accuracies say already.
        by_data_set=_numbers(of_tasks) if len(of_tasks) > 1 else {},
        by_epoch=tuple(
            Epoch(int(one["epoch"]), number(one.get("unlearned")), number(one.get("retained")))
            for one in measured.get("by_epoch") or ()
        ),
        attacks=tuple(
            Attack(str(one["name"]), number(one.get("inclusive")), number(one.get("perfect")))
            for one in matching.get("attacks") or ()
        ),
        vanished_are_one_label=matching.get("vanished_are_one_label"),
        membership={
            name: _membership(computed[key])
            for name, key in _MEMBERSHIP.items()
            if computed.get(key)
        },
        divergence=_numbers(computed.get("divergence")),
        relearn=_numbers(computed.get("relearn")),
        backdoor=_numbers(computed.get("backdoor")),
    )


_MEMBERSHIP = {
    "after": "membership",
    "before": "membership_before",
    "reference": "membership_reference",
    "pair": "membership_pair",
}


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


def _membership(found: Json) -> Membership:
    roc = found.get("roc") or {}
    false_positives = tuple(map(float, roc.get("false_positive_rate") or ()))
    true_positives = tuple(map(float, roc.get("true_positive_rate") or ()))
    if len(false_positives) != len(true_positives):
        raise ValueError("the two rates of roc are not of one length")
    return Membership(
        hit_rate=number(found.get("hit_rate")),
        false_positives=number(found.get("false_positive_rate")),
        auc=number(found.get("auc")),
        tpr_at_low_fpr=number(found.get("tpr_at_1_percent_fpr")),
        members=number(found.get("members")),
        non_members=number(found.get("non_members")),
        roc=(false_positives, true_positives) if false_positives else None,
    )


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


def _numbers(found: Json | None) -> dict[str, float]:
    measured = {str(name): number(value) for name, value in (found or {}).items()}
    return {name: value for name, value in measured.items() if value is not None}


def strongest(attacks: Sequence[Attack]) -> Attack | None:
    """Return the attack that matched most labels perfectly, of equals most inclusively."""
    measured = [one for one in attacks if one.perfect is not None]
    return max(measured, key=lambda one: (one.perfect or 0, one.inclusive or 0), default=None)
