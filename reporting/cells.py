"""One cell of a benchmark: the measures of a run, and those computed from it afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from split_unlearning.reporting import result as result_form
from split_unlearning.reporting.result import Distribution, Result

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

    def named(self, start: str) -> dict[str, float]:
        """Return the measures whose name begins so, by the rest of their name."""
        return {
            name.removeprefix(start): value
            for name, value in self.measures.items()
            if name.startswith(start)
        }


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


def read_cell(description: Json, result: Result, metrics: Json | None) -> Cell:
    """Return a finished cell from ``cell.json``, ``result.json`` and ``metrics.json``.

    Raises
    ------
    LookupError, TypeError, ValueError
        If ``cell.json`` or ``metrics.json`` is not of its form.
    """
    computed = {int(phase["task"]): phase for phase in (metrics or {}).get("phases", [])}
    return Cell(
        id=str(description["id"]),
        coordinates=dict(description["coordinates"]),
        clients=int(description.get("clients", result.clients)),
        seed=int(description["seed"]),
        config=result.config,
        environment=result.environment.model_dump(),
        phases=tuple(_phase(phase, computed.get(phase.task, {})) for phase in result.phases),
        labels=tuple(result.phases[0].accuracy.per_label),
        distribution=result.distribution,
        reference=(metrics or {}).get("reference") or description.get("reference") or None,
    )


def _phase(measured: result_form.Phase, computed: Json) -> Phase:
    accuracy = measured.accuracy.model_dump()
    if len(measured.accuracy.per_task) < 2:
        # The accuracy of a single data set would say the same as the others.
        del accuracy["per_task"]
    clients = tuple(map(_cost, measured.clients))
    matching = measured.label_matching
    numbers = _flat(
        {
            **computed,
            **_means(clients),
            "accuracy": accuracy,
            "server": measured.server.model_dump(),
            "label_matching": matching.model_dump() if matching else {},
            "matching": _attacks(matching.attacks) if matching else {},
        }
    )
    rocs = {
        name: _roc(found.get("roc"))
        for name, found in computed.items()
        if isinstance(found, Mapping)
    }
    return Phase(
        task=measured.task,
        request=measured.request or "",
        clients=clients,
        measures=numbers,
        by_epoch={
            "forgotten": _curve((one.epoch, one.unlearned) for one in measured.by_epoch),
            "retained": _curve((one.epoch, one.retained) for one in measured.by_epoch),
        },
        rocs={name: roc for name, roc in rocs.items() if roc[0]},
    )


def _curve(points: Iterable[tuple[int, float | None]]) -> dict[int, float]:
    return {epoch: value for epoch, value in points if value is not None}


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


def _cost(client: result_form.ClientCost) -> Json:
    """Return what a phase cost a client, with what follows from it."""
    return {
        **client.model_dump(),
        "split_seconds": client.train_seconds - client.pretrain_seconds,
        "bytes": client.bytes_up + client.bytes_down,
    }


def _means(clients: Sequence[Json]) -> dict[str, dict[str, float]]:
    """Return the mean of every number over the clients that asked, and over the others."""
    means = {}
    for whose, requested in (("requesting", True), ("other", False)):
        costs = [_flat(one) for one in clients if one["requested"] is requested]
        names = {name for cost in costs for name in cost}
        means[whose] = {name: fmean(cost[name] for cost in costs if name in cost) for name in names}
    return means


def _attacks(attacks: Sequence[result_form.LabelAttack]) -> dict[str, Json]:
    """Return what each attack on masked labels reached, and the strongest of them."""
    found: dict[str, Json] = {
        one.name: {"perfect": one.perfect, "inclusive": one.inclusive} for one in attacks
    }
    measured = [one for one in found.values() if one["perfect"] is not None]
    if measured:
        strongest = max(measured, key=lambda one: (one["perfect"], one["inclusive"] or 0))
        found["strongest"] = strongest
    return found


def _roc(found: Json | None) -> Roc:
    known = found or {}
    false_positives = tuple(map(float, known.get("false_positive_rate") or ()))
    true_positives = tuple(map(float, known.get("true_positive_rate") or ()))
    if len(false_positives) != len(true_positives):
        raise ValueError("the two rates of roc are not of one length")
    return false_positives, true_positives


def number(value: object) -> float | None:
    """Return a number that was measured; None for null, and for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
