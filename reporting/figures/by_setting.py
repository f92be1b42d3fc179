"""Cost and accuracy by one setting: server epochs (the paper's Fig. 4), γ and ε (its Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from split_unlearning.reporting.figures.chart import (
    Axis,
    Chart,
    Curve,
    Point,
    describe,
    share_axis,
)
from split_unlearning.reporting.figures.figure import Figure, Key, Panel
from split_unlearning.reporting.groups import Group, as_number, axis_columns, shown
from split_unlearning.reporting.results import Results
from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, capital, in_words, plain, size

_MUCH = 30  # a cost that is so many times another needs a logarithmic axis


@dataclass(frozen=True)
class Quantity:
    """What is drawn: its name, its unit, and the measure of a phase that it is."""

    name: str
    unit: str
    measure: str


_SECONDS = Quantity("requesting client's computing", "seconds", "requesting/train_seconds")
_WIRE = Quantity(
    "requesting client's upload on the wire", "seconds", "requesting/transmission_seconds_up"
)
_UPLOAD = Quantity("requesting client's upload", "bytes", "requesting/bytes_up")
_FORGOTTEN = Quantity("forgotten accuracy", "share", "accuracy/unlearned")
_RETAINED = Quantity("retained accuracy", "share", "accuracy/retained")
_ELBOW = Quantity("perfect matching, kmeans elbow", "share", "matching/kmeans elbow/perfect")
_STRONGEST = Quantity("perfect matching, strongest attack", "share", "matching/strongest/perfect")

_FIGURES = (
    (
        "server-epochs",
        "Client cost by server epochs",
        "What a requesting client computes and sends as the server trains longer (the paper's Fig. "
        "4). A cost that does not rise is one that the client pays once.",
        (_SECONDS, _WIRE),
    ),
    (
        "expansion",
        "Cost and privacy by label expansion γ",
        "What masked labels cost the requesting client (the paper's Fig. 5a, 5b), and what they "
        "hide. Strategies without masked labels are dashed lines.",
        (_UPLOAD, _SECONDS, _ELBOW, _STRONGEST),
    ),
    (
        "epsilon",
        "Accuracy by privacy budget ε",
        "The smaller ε, the more noise (the paper's Fig. 5c, 5d). Strategies without noise are "
        "dashed lines.",
        (_FORGOTTEN, _RETAINED, _ELBOW),
    ),
)


@dataclass(frozen=True)
class _Family:
    """Groups that differ on one axis alone; `flat` if they have no place on it."""

    name: Label
    members: list[Group]
    flat: bool


def by_settings(results: Results) -> list[Figure]:
    """Return a figure for each of these settings that the benchmark varies."""
    found = [
        _figure(results, axis, title, caption, quantities)
        for axis, title, caption, quantities in _FIGURES
        if axis in results.groups[0].axes and len(set(_values(results, axis))) > 1
    ]
    return [figure for figure in found if figure is not None]


def _figure(
    results: Results, axis: str, title: str, caption: str, quantities: Sequence[Quantity]
) -> Figure | None:
    places, x = _places(axis, _values(results, axis).values())
    families = _families(results.groups, axis)
    panels, rows = [], []
    for quantity in quantities:
        for task, called in results.phases.items():
            curves = []
            for style, family in enumerate(families):
                points = _points(results, family, axis, task, quantity, places)
                if points:
                    curve = Curve(
                        family.name.text, points, style, dashed=family.flat, markers=not family.flat
                    )
                    curves.append(curve)
            if any(curve.markers for curve in curves):
                heading = f"{capital(quantity.name)}, {called}"
                words = describe(heading, curves, axis, quantity.name)
                chart = Chart(tuple(curves), x, _y(quantity, curves), words)
                panels.append(Panel(heading, chart))
                rows += [
                    (
                        *group.labels(),
                        *(Label(called), Label(quantity.name), Label(quantity.unit)),
                        value,
                    )
                    for group in results.groups
                    if (value := results.of(group, task, quantity.measure))
                ]
    if not panels:
        return None
    columns = (
        *axis_columns(results.groups[0]),
        Column("phase", "phase"),
        Column("quantity", "quantity"),
        Column("unit", "unit"),
        Column("value", "value", unit="value"),
    )
    keys = tuple(Key(one.name, style, one.flat) for style, one in enumerate(families))
    data = make_table(f"figure-by-{axis}", title, columns, rows)
    return Figure(f"by-{axis}", title, caption, tuple(panels), keys, data)


def _values(results: Results, axis: str) -> dict[str, object]:
    """Return the values on an axis by their text."""
    found = (group.value(axis) for group in results.groups)
    return {str(value): value for value in found if value is not None}


def _families(groups: Sequence[Group], axis: str) -> list[_Family]:
    families: dict[tuple[str, ...], _Family] = {}
    for group in groups:
        flat = group.value(axis) is None
        rest = tuple(str(group.value(one)) for one in group.axes if one != axis)
        family = families.setdefault((*rest, str(flat)), _Family(group.name(axis), [], flat))
        family.members.append(group)
    return list(families.values())


def _places(axis: str, values: Iterable[object]) -> tuple[dict[str, float], Axis]:
    """Return where each value stands: numbers by size if all are, else one beside the other."""
    named = {str(value): shown(value).text for value in values}
    numbers = {name: as_number(name) for name in named}
    known = {name: number for name, number in numbers.items() if number is not None}
    if axis == "server-epochs" and len(known) == len(named):
        return known, Axis(axis, low=0.0)
    ordered = sorted(named, key=lambda name: (name not in known, known.get(name, 0.0), name))
    scale = Axis(axis, names=tuple(named[name] for name in ordered))
    return {name: float(place) for place, name in enumerate(ordered)}, scale


def _points(
    results: Results,
    family: _Family,
    axis: str,
    task: int,
    quantity: Quantity,
    places: dict[str, float],
) -> tuple[Point, ...]:
    found = []
    for group in family.members:
        value = results.of(group, task, quantity.measure)
        if value is None:
            continue
        words = in_words(value, quantity.unit)
        if family.flat:
            ends = (min(places.values()), max(places.values()))
            return tuple(Point(end, value.mean, words) for end in ends)
        where = group.value(axis)
        words += f" at {axis} {shown(where).text}"
        found.append(Point(places[str(where)], value.mean, words, value.deviation or 0.0))
    return tuple(sorted(found, key=lambda point: point.x))


def _y(quantity: Quantity, curves: Sequence[Curve]) -> Axis:
    if quantity.unit == "share":
        return share_axis("accuracy" if "accuracy" in quantity.name else "labels")
    values = [point.y for curve in curves for point in curve.points]
    label, write = ("upload", size) if quantity.unit == "bytes" else ("seconds", plain)
    if min(values) > 0 and max(values) / min(values) > _MUCH:
        return Axis(f"{label}, log scale", write, log=True)
    return Axis(label, write, low=0.0)
