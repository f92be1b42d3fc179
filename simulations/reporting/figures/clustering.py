"""Clustering accuracy: how many labels each attack found (the paper's Figs. 6 and 8)."""

from __future__ import annotations

from collections.abc import Sequence

from simulations.reporting.figures.chart import Curve, Point, chart
from simulations.reporting.figures.figure import Figure, Panel, legend
from simulations.reporting.figures.scale import categories
from simulations.reporting.figures.words import all_shares, said
from simulations.reporting.groups import Group, axis_columns
from simulations.reporting.table import Column, Label, Table, Value
from simulations.reporting.tables.label_matching import matched
from simulations.reporting.tables.rows import phases


def clustering_accuracy(groups: Sequence[Group]) -> Figure | None:
    """Return what each attack on masked labels reached, None if none was run."""
    attacked = [group for group in groups if _attacks([group])]
    if not attacked:
        return None
    names = _attacks(attacked)
    panels: list[Panel] = []
    rows: list[tuple[Value, ...]] = []
    for task, called in phases(attacked).items():
        for kind in ("perfect", "inclusive"):
            curves = [
                _dots(group, number, len(attacked), task, kind, names, rows, called)
                for number, group in enumerate(attacked)
            ]
            curves = [curve for curve in curves if curve.points]
            if not curves:
                continue
            heading = f"{kind.capitalize()} accuracy after {called}"
            text = f"{heading}. " + " ".join(
                f"{curve.name}: {'; '.join(point.said for point in curve.points)}."
                for curve in curves
            )
            x, y = all_shares("labels"), categories("attack", names)
            panels.append(Panel(heading, chart(curves, x, y, text, rows=True)))
    columns = (
        *axis_columns(groups[0]),
        Column("phase", "phase"),
        Column("attack", "attack"),
        Column("perfect", "perfect", unit="share"),
        Column("inclusive", "inclusive", unit="share"),
    )
    return Figure(
        "label-matching",
        "Clustering accuracy of label matching",
        "How many real labels each attack puts together from their masked ones. Perfect: exactly; "
        "inclusive: perhaps with others. To the left, the server is told less.",
        tuple(panels),
        legend(attacked, line=False),
        Table("figure-label-matching", "All attacks on masked labels", columns, tuple(rows)),
    )


def _attacks(groups: Sequence[Group]) -> list[str]:
    return list(
        dict.fromkeys(
            attack.name
            for group in groups
            for cell in group.cells
            for phase in cell.phases
            for attack in phase.attacks
        )
    )


def _dots(
    group: Group,
    number: int,
    of: int,
    task: int,
    kind: str,
    names: Sequence[str],
    rows: list[tuple[Value, ...]],
    called: str,
) -> Curve:
    """Return the points of a group, and put its numbers into the rows once."""
    points = []
    # The groups of a row are drawn below each other.
    shift = 0.8 * ((number + 0.5) / of - 0.5)
    for place, name in enumerate(names):
        both = {
            one: group.of_phase(task, lambda phase, n=name, o=one: matched(phase, n, o))  # type: ignore[misc]
            for one in ("perfect", "inclusive")
        }
        value = both[kind]
        if value is None:
            continue
        points.append(Point(value.mean, place + shift, f"{name} {said(value, 'share')}"))
        if kind == "perfect":
            rows.append(
                (*group.labels(), Label(called), Label(name), both["perfect"], both["inclusive"])
            )
    return Curve(group.name().text, tuple(points), number, line=False)
