"""Cost and accuracy by one setting: server epochs (the paper's Fig. 4), γ and ε (its Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from split_unlearning.reporting.cells import Phase
from split_unlearning.reporting.figures.chart import Curve, Point, chart
from split_unlearning.reporting.figures.figure import Figure, Key, Panel, in_words
from split_unlearning.reporting.figures.scale import Scale, categories, linear, logarithmic
from split_unlearning.reporting.figures.words import all_shares, plain, said, size
from split_unlearning.reporting.groups import Group, as_number, axis_columns, shown
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Label, Table, Value
from split_unlearning.reporting.tables.label_matching import matched
from split_unlearning.reporting.tables.rows import phases

_MUCH = 30  # so many times as much is shown on a logarithmic axis


@dataclass(frozen=True)
class Quantity:
    """What is drawn: its name, its unit, and how it is read from a phase."""

    name: str
    unit: str
    of: Callable[[Phase], float | None]


SECONDS = Quantity(
    "requesting client's computing", "seconds", lambda phase: phase.mean_cost("seconds", True)
)
WIRE = Quantity(
    "requesting client's upload on the wire",
    "seconds",
    lambda phase: phase.mean_cost("wire_up", True),
)
UPLOAD = Quantity(
    "requesting client's upload", "bytes", lambda phase: phase.mean_cost("bytes_up", True)
)
FORGOTTEN = Quantity("forgotten accuracy", "share", lambda phase: phase.forgotten)
RETAINED = Quantity("retained accuracy", "share", lambda phase: phase.retained)
ELBOW = Quantity(
    "perfect matching, kmeans elbow",
    "share",
    lambda phase: matched(phase, "kmeans elbow", "perfect"),
)
STRONGEST = Quantity(
    "perfect matching, strongest attack",
    "share",
    lambda phase: matched(phase, "strongest", "perfect"),
)

_FIGURES = (
    (
        "server-epochs",
        "Client cost by server epochs",
        "What a requesting client computes and sends as the server trains longer (the paper's Fig. "
        "4). A cost that does not rise is one that the client pays once.",
        (SECONDS, WIRE),
    ),
    (
        "expansion",
        "Cost and privacy by label expansion γ",
        "What masked labels cost the requesting client (the paper's Fig. 5a, 5b), and what they "
        "hide. Strategies without masked labels are dashed lines.",
        (UPLOAD, SECONDS, ELBOW, STRONGEST),
    ),
    (
        "epsilon",
        "Accuracy by privacy budget ε",
        "The smaller ε, the more noise (the paper's Fig. 5c, 5d). Strategies without noise are "
        "dashed lines.",
        (FORGOTTEN, RETAINED, ELBOW),
    ),
)


def by_settings(groups: Sequence[Group]) -> list[Figure]:
    """Return a figure for each of these settings that the benchmark varies."""
    found = [
        _figure(groups, axis, title, caption, quantities)
        for axis, title, caption, quantities in _FIGURES
        if axis in groups[0].axes
        and len({str(group.value(axis)) for group in groups if group.value(axis) is not None}) > 1
    ]
    return [figure for figure in found if figure is not None]


def _figure(
    groups: Sequence[Group],
    axis: str,
    title: str,
    caption: str,
    quantities: Sequence[Quantity],
) -> Figure | None:
    values = [group.value(axis) for group in groups if group.value(axis) is not None]
    places, x = _places(axis, values)
    families = _families(groups, axis)
    panels, rows = [], []
    for quantity in quantities:
        for task, called in phases(groups).items():
            curves = []
            for style, (name, members, flat) in enumerate(families):
                points = _points(members, axis, task, quantity, places, x, flat)
                if points:
                    curves.append(Curve(name.text, points, style, dashed=flat, markers=not flat))
            if any(curve.markers for curve in curves):
                heading = f"{quantity.name[:1].upper()}{quantity.name[1:]}, {called}"
                text = in_words(heading, curves, axis, quantity.name)
                panels.append(Panel(heading, chart(curves, x, _y(quantity, curves), text)))
                rows += _rows(groups, task, called, quantity)
    if not panels:
        return None
    columns = (
        *axis_columns(groups[0]),
        Column("phase", "phase"),
        Column("quantity", "quantity"),
        Column("unit", "unit"),
        Column("value", "value", unit="value"),
    )
    keys = tuple(Key(name, style, dashed=flat) for style, (name, _, flat) in enumerate(families))
    slug = f"by-{axis}"
    data = Table(f"figure-{slug}", title, columns, tuple(rows))
    return Figure(slug, title, caption, tuple(panels), keys, data)


def _families(groups: Sequence[Group], axis: str) -> list[tuple[Label, list[Group], bool]]:
    """Return the groups that differ on this axis alone; and whether they have no place on it."""
    families: dict[tuple[str, ...], tuple[Label, list[Group], bool]] = {}
    for group in groups:
        flat = group.value(axis) is None
        rest = tuple(str(group.value(one)) for one in group.axes if one != axis)
        families.setdefault((*rest, str(flat)), (group.name(axis), [], flat))[1].append(group)
    return list(families.values())


def _places(axis: str, values: Sequence[object]) -> tuple[dict[str, float], Scale]:
    """Return where each value stands: numbers by size if all are, else one beside the other."""
    numbers = {str(value): as_number(value) for value in values}
    if axis == "server-epochs" and all(number is not None for number in numbers.values()):
        known = {name: number for name, number in numbers.items() if number is not None}
        return known, linear(axis, [0.0, *known.values()], plain)
    ordered = sorted(numbers, key=lambda name: (numbers[name] is None, numbers[name] or 0.0, name))
    named = {str(value): shown(value).text for value in values}
    scale = categories(axis, [named[name] for name in ordered])
    return {name: float(place) for place, name in enumerate(ordered)}, scale


def _points(
    members: Sequence[Group],
    axis: str,
    task: int,
    quantity: Quantity,
    places: dict[str, float],
    x: Scale,
    flat: bool,
) -> tuple[Point, ...]:
    found = []
    for group in members:
        value = group.of_phase(task, quantity.of)
        if value is None:
            continue
        words = said(value, quantity.unit)
        if flat:
            return tuple(Point(end, value.mean, words) for end in (x.low, x.high))
        where = group.value(axis)
        found.append(
            Point(
                places[str(where)],
                value.mean,
                f"{words} at {axis} {shown(where).text}",
                value.deviation or 0.0,
            )
        )
    return tuple(sorted(found, key=lambda point: point.x))


def _y(quantity: Quantity, curves: Sequence[Curve]) -> Scale:
    if quantity.unit == "share":
        return all_shares("accuracy" if "accuracy" in quantity.name else "labels")
    values = [point.y for curve in curves for point in curve.points]
    written = size if quantity.unit == "bytes" else plain
    label = "upload" if quantity.unit == "bytes" else "seconds"
    if min(values) > 0 and max(values) / min(values) > _MUCH:
        return logarithmic(f"{label}, log scale", values, written)
    return linear(label, [0.0, *values], written)


def _rows(
    groups: Sequence[Group], task: int, called: str, quantity: Quantity
) -> list[tuple[Value, ...]]:
    rows: list[tuple[Value, ...]] = []
    for group in groups:
        value: Summary | None = group.of_phase(task, quantity.of)
        if value is not None:
            labels = (Label(called), Label(quantity.name), Label(quantity.unit))
            rows.append((*group.labels(), *labels, value))
    return rows
