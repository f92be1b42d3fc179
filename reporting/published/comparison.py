"""Ours beside theirs: cells that match a published row, the difference, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Cell, Phase
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.published.paper import Row, lookup
from split_unlearning.reporting.published.terms import (
    BANDWIDTH,
    dataset,
    differences,
    forgotten,
    framework,
)
from split_unlearning.reporting.statistic import Summary, summarise
from split_unlearning.reporting.table import Column, Label, Table, Value

_TITLES = {
    "client_time": "Client seconds, beside the paper's",
    "label_accuracy": "Accuracy when a label is forgotten, beside the paper's",
    "membership_hit_rate": "Membership hit rate, beside the paper's",
    "sample_level_accuracy": "Accuracy when a share of a label is forgotten, beside the paper's",
}
_NOTES = {
    "client_time": (
        "The paper counts transmission on the way up; ours are the bytes up at 100 Mbps. Its "
        "training seconds leave pre-training out, and so do ours where a run measured it apart.",
    ),
    "membership_hit_rate": (
        "δ is the share of the label's samples that is forgotten; at 0 nothing is yet. The paper "
        "gives no false-positive rate beside its hit rate.",
    ),
    "sample_level_accuracy": (
        "δ is the share of the label's samples that is forgotten; at 0 nothing is yet.",
    ),
}
_HARDWARE = "other hardware"
_PRETRAINING = "ours contain pre-training"


@dataclass(frozen=True)
class Pair:
    """One number of ours, measured in several seeds, and the published one, in the same unit.

    Parameters
    ----------
    where : dict
        The published row.
    quantity : str
        Which of its numbers; those of one row stand beside each other.
    unit : str
        Of both.
    ours, theirs : Summary, float
        The numbers.
    apart : sequence of str
        What keeps them from being compared.
    """

    where: Row
    quantity: str
    unit: str
    ours: Summary
    theirs: float
    apart: tuple[str, ...]


def comparison_tables(benchmark: Benchmark, groups: Sequence[Group]) -> list[Table]:
    """Return a table for each published one that any cell matches."""
    found = [(name, list(_pairs(name, benchmark, groups))) for name in benchmark.published]
    return [_table(name, pairs) for name, pairs in found if pairs]


def _table(name: str, pairs: Sequence[tuple[Group, Pair]]) -> Table:
    """Return the pairs as a table, without the columns in which all are the same."""
    lines: dict[tuple[object, ...], tuple[Group, dict[str, Pair]]] = {}
    for group, pair in pairs:
        key = (group.number, *pair.where.values())
        lines.setdefault(key, (group, {}))[1][pair.quantity] = pair
    keys = list(pairs[0][1].where)
    kept = [
        key for key in keys if key == "framework" or len({pair.where[key] for _, pair in pairs}) > 1
    ]
    # Several of our cells can match one published row: they differ in what the paper does not vary.
    several = len({tuple(pair.where.values()) for _, pair in pairs}) < len(lines)
    quantities = list(dict.fromkeys(pair.quantity for _, pair in pairs))
    everywhere = [
        reason for reason in pairs[0][1].apart if all(reason in pair.apart for _, pair in pairs)
    ]
    columns = [
        *(Column("cells", "our cells") for _ in range(several)),
        *(Column(key, key) for key in kept),
    ]
    for quantity in quantities:
        slug, unit = quantity.replace(" ", "_"), pairs[0][1].unit
        columns += [
            Column(f"{slug}_ours", "ours", quantity, unit),
            Column(f"{slug}_paper", "paper's", quantity, unit, fixed=True),
            Column(f"{slug}_difference", "difference", quantity, unit, signed=True, fixed=True),
        ]
    columns += [Column("comparable", "comparable?"), Column("why_not", "why not")]
    rows = [
        _row(group, found, kept, quantities, everywhere, several) for group, found in lines.values()
    ]
    same = [f"{key} {pairs[0][1].where[key]}" for key in keys if key not in kept]
    notes = [f"Same in all rows: {', '.join(same)}."] if same else []
    if everywhere:
        notes.append(f"No row is comparable as it is: {'; '.join(everywhere)}.")
    slug = f"paper-{name.replace('_', '-')}"
    told = (*notes, *_NOTES.get(name, ()))
    return Table(slug, _TITLES[name], tuple(columns), tuple(rows), told)


def _row(
    group: Group,
    found: dict[str, Pair],
    kept: Sequence[str],
    quantities: Sequence[str],
    everywhere: Sequence[str],
    several: bool,
) -> tuple[Value, ...]:
    """Return one published row beside ours; `everywhere` is what a note says of all rows."""
    where = next(iter(found.values())).where
    values: list[Value] = [group.name()] if several else []
    values += [Label(where[key]) for key in kept]
    for quantity in quantities:
        pair = found.get(quantity)
        if pair is None:
            values += [None, None, None]
        else:
            values += [pair.ours, Summary(pair.theirs), Summary(pair.ours.mean - pair.theirs)]
    return (*values, *_comparable(found, everywhere))


def _comparable(found: dict[str, Pair], everywhere: Sequence[str]) -> tuple[Label, Label | None]:
    """Return whether a row is comparable, and why not where no note says it."""
    reasons: dict[str, list[str]] = {}
    for quantity, pair in found.items():
        for reason in pair.apart:
            reasons.setdefault(reason, []).append(quantity)
    if not reasons:
        return Label("yes", tone="good"), None
    said: dict[str, list[str]] = {}
    for reason, quantities in reasons.items():
        if reason not in everywhere:
            of = "" if len(quantities) == len(found) else f"{' and '.join(quantities)}: "
            said.setdefault(of, []).append(reason)
    own = [of + ", ".join(told) for of, told in said.items()]
    return Label("no", tone="open"), Label("; ".join(own)) if own else None


def _pairs(
    name: str, benchmark: Benchmark, groups: Sequence[Group]
) -> Iterator[tuple[Group, Pair]]:
    makers = {
        "client_time": _times,
        "label_accuracy": _accuracies,
        "membership_hit_rate": _hit_rates,
        "sample_level_accuracy": _sample_accuracies,
    }
    for group in groups:
        for pair in makers[name](benchmark, group):
            yield group, pair


def _where(benchmark: Benchmark, cell: Cell, with_epsilon: bool) -> Row | None:
    called = framework(cell, with_epsilon)
    if called is None:
        return None
    return {
        "model": str(cell.setting("model")),
        "distribution": str(cell.setting("distribution")),
        "dataset": dataset(benchmark, cell),
        "framework": called,
    }


def _label_phases(group: Group) -> Iterator[tuple[str, Phase, str]]:
    """Yield learning and the first forgetting of a run that forgets all of a label, and which."""
    cell = group.cells[0]
    labels = cell.distribution.labels if cell.distribution else cell.labels
    unlearn = cell.phase(1)
    meant = forgotten(unlearn.request, labels) if unlearn else None
    learn = cell.phase(0)
    if learn is None or unlearn is None or meant is None or meant.share != 1:
        return
    yield "learn", learn, meant.label
    yield "unlearn", unlearn, meant.label


def _share(group: Group) -> tuple[float, str] | None:
    """Return which share of which label a run forgets first; None if it forgets none, or all."""
    cell = group.cells[0]
    labels = cell.distribution.labels if cell.distribution else cell.labels
    phase = cell.phase(1)
    meant = forgotten(phase.request, labels) if phase else None
    return None if meant is None or meant.share == 1 else (meant.share, meant.label)


def _times(benchmark: Benchmark, group: Group) -> Iterator[Pair]:
    cell = group.cells[0]
    where = _where(benchmark, cell, with_epsilon=False)
    for scenario, phase, label in _label_phases(group) if where else ():
        for clients, requested in (("requesting", True), ("other", False)):
            at = {**(where or {}), "scenario": scenario, "clients": clients}
            row = lookup("client_time", **at)
            if row is None:
                continue
            apart = differences(benchmark, cell, row["dataset"], label)
            training = group.of_phase(
                phase.task,
                lambda one, who=requested: one.mean_cost("split_seconds", who),  # type: ignore[misc]
            )
            up = group.of_phase(
                phase.task,
                lambda one, who=requested: one.mean_cost("bytes_up", who),  # type: ignore[misc]
            )
            if training is not None:
                theirs = float(row["training_s"])
                more = [_HARDWARE] if training.mean or theirs else []
                if training.mean and cell.setting("pretrain-epochs") and not phase.apart:
                    more.append(_PRETRAINING)
                yield Pair(at, "training", "seconds", training, theirs, (*apart, *more))
            if up is not None:
                seconds = _times_factor(up, 8 / (BANDWIDTH * 1e6))
                theirs = float(row["transmission_s"])
                yield Pair(at, "transmission", "seconds", seconds, theirs, tuple(apart))


def _accuracies(benchmark: Benchmark, group: Group) -> Iterator[Pair]:
    cell = group.cells[0]
    where = _where(benchmark, cell, with_epsilon=True)
    for scenario, phase, label in _label_phases(group) if where else ():
        for labels, name in (("unlearned", "forgotten"), ("retained", "retained")):
            at = {**(where or {}), "scenario": scenario}
            row = lookup("label_accuracy", **at, labels=labels)
            ours = group.of_phase(phase.task, attrgetter(name))
            if row is not None and ours is not None:
                apart = differences(benchmark, cell, row["dataset"], label)
                yield _accuracy(at, name, ours, row, apart)


def _sample_accuracies(benchmark: Benchmark, group: Group) -> Iterator[Pair]:
    cell = group.cells[0]
    where, meant = _where(benchmark, cell, with_epsilon=True), _share(group)
    if where is None or meant is None:
        return
    for delta, task in ((0.0, 0), (meant[0], 1)):
        for labels, name in (("unlearned", "forgotten"), ("retained", "retained")):
            at = {**where, "delta": f"{delta:g}"}
            row = lookup("sample_level_accuracy", **at, labels=labels)
            ours = group.of_phase(task, attrgetter(name))
            if row is not None and ours is not None:
                apart = differences(benchmark, cell, row["dataset"], meant[1])
                yield _accuracy(at, name, ours, row, apart)


def _accuracy(at: Row, name: str, ours: Summary, row: Row, apart: Sequence[str]) -> Pair:
    theirs = float(row["accuracy_percent"]) / 100
    return Pair(at, f"{name} accuracy", "share", ours, theirs, tuple(apart))


def _hit_rates(benchmark: Benchmark, group: Group) -> Iterator[Pair]:
    cell = group.cells[0]
    where, meant = _where(benchmark, cell, with_epsilon=True), _share(group)
    if where is None or meant is None:
        return
    for delta, when in ((0.0, "before"), (meant[0], "after")):
        at = {**where, "delta": f"{delta:g}"}
        row = lookup("membership_hit_rate", **at)
        ours = summarise(hit_rate(one, when) for one in group.cells)
        if row is None or ours is None:
            continue
        apart = differences(benchmark, cell, row["dataset"], meant[1])
        theirs = float(row["hit_rate_percent"]) / 100
        yield Pair(at, "hit rate", "share", ours, theirs, tuple(apart))


def hit_rate(cell: Cell, when: str) -> float | None:
    """Return the hit rate on what a cell's first request means, before or after it."""
    phase = cell.phase(1)
    found = phase.membership.get(when) if phase else None
    return None if found is None else found.hit_rate


def _times_factor(value: Summary, factor: float) -> Summary:
    deviation = None if value.deviation is None else value.deviation * factor
    return Summary(value.mean * factor, deviation, value.count)
