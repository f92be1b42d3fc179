"""One cell of a benchmark: the measures of a run, and those computed from it afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Json = Mapping[str, Any]
Roc = tuple[tuple[float, ...], tuple[float, ...]]
"""False-positive and true-positive rates, by rising threshold."""

# Shares by label and by client are no measures of a whole phase.
_LEFT_OUT = frozenset({"per_label", "per_client"})


@dataclass(frozen=True)
class Phase:
    """Learning (task 0), or one forgetting.

    `measures` are all numbers of the phase, which tables, figures, claims and TensorBoard read, by
    where they stand in ``result.json`` and ``metrics.json``: ``accuracy/retained``,
    ``server/train_seconds``, ``membership_before/auc``, ``divergence/forgotten``. The means of what
    clients paid are ``requesting/bytes_up``, ``other/train_seconds``, ..., and what attacks on
    masked labels reached is ``matching/ATTACK/perfect``. A measure that was not taken is not there.

    `clients` is what each client paid, `by_epoch` holds accuracies by name and epoch, `rocs` an
    attack's rates by where it stands in ``metrics.json``.
    """

    task: int
    request: str
    clients: tuple[Json, ...]
    measures: Mapping[str, float] = field(default_factory=dict)
    by_epoch: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    rocs: Mapping[str, Roc] = field(default_factory=dict)

    @property
    def pretraining_is_apart(self) -> bool:
        """Whether clients' pre-training was measured apart."""
        return all(number(one.get("pretrain_seconds")) is not None for one in self.clients)

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
        If one of the files is not of its form.
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
        reference=(metrics or {}).get("reference") or description.get("reference") or None,
    )


def _phase(measured: Json, computed: Json, place: int) -> Phase:
    accuracy = dict(measured["accuracy"])
    if len(accuracy.get("per_task") or ()) < 2:
        # The accuracy of a single data set would say the same as the others.
        accuracy.pop("per_task", None)
    matching = measured.get("label_matching") or {}
    clients = tuple(map(_cost, measured["clients"]))
    numbers = _flat(
        {
            **computed,
            **_means(clients),
            "accuracy": accuracy,
            "server": measured.get("server") or {},
            "label_matching": matching,
            "matching": _attacks(matching.get("attacks") or ()),
        }
    )
    rocs = {
        name: _roc(found.get("roc"))
        for name, found in computed.items()
        if isinstance(found, Mapping)
    }
    return Phase(
        task=int(measured.get("task", place)),
        request=str(measured["request"] or ""),
        clients=clients,
        measures=numbers,
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


def _flat(found: Json, start: str = "") -> dict[str, float]:
    """Return the numbers in a mapping of mappings by the path to each."""
    numbers: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, Mapping) and name not in _LEFT_OUT:
            numbers |= _flat(value, f"{start}{name}/")
        elif isinstance(value, bool):
            numbers[start + name] = float(value)
        elif (measured := number(value)) is not None:
            numbers[start + name] = measured
    return numbers


def _cost(client: Json) -> Json:
    """Return what a phase cost a client, with what follows from it."""
    pretraining = number(client.get("pretrain_seconds")) or 0.0
    return {
        **client,
        "split_seconds": float(client["train_seconds"]) - pretraining,
        "bytes": float(client["bytes_up"]) + float(client["bytes_down"]),
        "messages": float(client["messages"]),
        "requested": bool(client["requested"]),
    }


def _means(clients: Sequence[Json]) -> dict[str, dict[str, float]]:
    """Return the mean of every number over the clients that asked, and over the others."""
    means = {}
    for whose, requested in (("requesting", True), ("other", False)):
        costs = [_flat(one) for one in clients if one["requested"] is requested]
        names = {name for cost in costs for name in cost}
        means[whose] = {name: fmean(cost[name] for cost in costs if name in cost) for name in names}
    return means


def _attacks(attacks: Sequence[Json]) -> dict[str, Json]:
    """Return what each attack on masked labels reached, and the strongest of them."""
    found = {
        str(one["name"]): {kind: number(one.get(kind)) for kind in ("perfect", "inclusive")}
        for one in attacks
    }
    measured = [one for one in found.values() if one["perfect"] is not None]
    if measured:
        strongest = max(measured, key=lambda one: (one["perfect"] or 0, one["inclusive"] or 0))
        found["strongest"] = strongest
    return dict(found)


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
