"""Our numbers beside published ones, with the difference and whether the two compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Cell
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.published.paper import Row, lookup
from split_unlearning.reporting.published.terms import (
    BANDWIDTH,
    Forgotten,
    dataset,
    differences,
    forgotten,
    framework,
)
from split_unlearning.reporting.results import Results
from split_unlearning.reporting.table import Column, Table, make_table
from split_unlearning.reporting.values import Label, Summary, Value

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


@dataclass(frozen=True)
class Pair:
    """One number of ours, measured in several seeds, and the published one, in the same unit.

    `where` is the published row; the quantities of a row stand beside each other. `apart` is what
    keeps the two from being compared.
    """

    where: Row
    quantity: str
    unit: str
    ours: Summary
    theirs: float
    apart: tuple[str, ...]


def comparison_tables(results: Results) -> list[Table]:
    """Return a table for each published one that any cell matches."""
    found = {
        name: [(group, pair) for group in results.groups for pair in _PAIRS[name](results, group)]
        for name in results.benchmark.published
    }
    return [_table(name, pairs) for name, pairs in found.items() if pairs]


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
    # Several of our cells can match one published row, where they differ in other settings.
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
    return make_table(slug, _TITLES[name], columns, rows, told)


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


def _meant(cell: Cell) -> Forgotten | None:
    """Return what a run forgets first, None if it is none of one label's samples."""
    labels = cell.distribution.labels if cell.distribution else cell.labels
    phase = cell.phase(1)
    return forgotten(phase.request, labels) if phase else None


def _times(results: Results, group: Group) -> Iterator[Pair]:
    cell = group.cells[0]
    where, meant = _where(results.benchmark, cell, with_epsilon=False), _meant(cell)
    if where is None or meant is None or meant.share != 1:
        return
    for scenario, task in _SCENARIOS.items():
        phase = cell.phase(task)
        for clients in ("requesting", "other") if phase else ():
            at = {**where, "scenario": scenario, "clients": clients}
            row = lookup("client_time", **at)
            if phase is None or row is None:
                continue
            apart = differences(results.benchmark, cell, row["dataset"], meant.label)
            training = results.of(group, task, f"{clients}/split_seconds")
            if training is not None:
                theirs = row["training_s"]
                more = [_HARDWARE] if training.mean or theirs else []
                yield Pair(at, "training", "seconds", training, theirs, (*apart, *more))
            up = results.of(group, task, f"{clients}/bytes_up")
            if up is not None:
                seconds = up.times(8 / (BANDWIDTH * 1e6))
                theirs = row["transmission_s"]
                yield Pair(at, "transmission", "seconds", seconds, theirs, tuple(apart))


def _accuracies(results: Results, group: Group) -> Iterator[Pair]:
    meant = _meant(group.cells[0])
    if meant and meant.share == 1:
        for scenario, task in _SCENARIOS.items():
            for labels in _LABELS:
                at, measure = {"scenario": scenario, "labels": labels}, f"accuracy/{labels}"
                yield from _shares(results, group, "label_accuracy", at, task, measure)


def _sample_accuracies(results: Results, group: Group) -> Iterator[Pair]:
    meant = _meant(group.cells[0])
    if meant and meant.share != 1:
        for delta, task in ((0.0, 0), (meant.share, 1)):
            for labels in _LABELS:
                at, measure = {"delta": f"{delta:g}", "labels": labels}, f"accuracy/{labels}"
                yield from _shares(results, group, "sample_level_accuracy", at, task, measure)


def _hit_rates(results: Results, group: Group) -> Iterator[Pair]:
    meant = _meant(group.cells[0])
    if meant and meant.share != 1:
        for delta, attack in ((0.0, "membership_before"), (meant.share, "membership")):
            at, measure = {"delta": f"{delta:g}"}, f"{attack}/hit_rate"
            yield from _shares(results, group, "membership_hit_rate", at, 1, measure)


def _shares(
    results: Results, group: Group, table: str, at: Row, task: int, measure: str
) -> Iterator[Pair]:
    """Yield a share of ours beside that of the published row with these values."""
    cell = group.cells[0]
    where, meant = _where(results.benchmark, cell, with_epsilon=True), _meant(cell)
    row = lookup(table, **where, **at) if where else None
    ours = results.of(group, task, measure)
    if where is None or meant is None or row is None or ours is None:
        return
    apart = differences(results.benchmark, cell, row["dataset"], meant.label)
    quantity, column = ("hit rate", "hit_rate_percent")
    if table != "membership_hit_rate":
        quantity, column = (f"{_LABELS[at['labels']]} accuracy", "accuracy_percent")
    # Accuracies of both kinds of labels stand in one row.
    place = {**where, **{key: value for key, value in at.items() if key != "labels"}}
    yield Pair(place, quantity, "share", ours, row[column] / 100, tuple(apart))


_SCENARIOS = {"learn": 0, "unlearn": 1}
_LABELS = {"unlearned": "forgotten", "retained": "retained"}
_PAIRS = {
    "client_time": _times,
    "label_accuracy": _accuracies,
    "membership_hit_rate": _hit_rates,
    "sample_level_accuracy": _sample_accuracies,
}
