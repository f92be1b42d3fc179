"""How far a forgetting is from retraining, against what it cost the client that asked."""

from __future__ import annotations

from collections.abc import Sequence

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Cell
from split_unlearning.reporting.figures.chart import Curve, Point, chart
from split_unlearning.reporting.figures.figure import Figure, Panel, in_words, legend
from split_unlearning.reporting.figures.scale import linear, logarithmic
from split_unlearning.reporting.figures.words import plain, said, size
from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Label, Table
from split_unlearning.reporting.tables.distance import accuracy_gap
from split_unlearning.reporting.tables.rows import phases


def forgetting_against_cost(benchmark: Benchmark, groups: Sequence[Group]) -> Figure | None:
    """Return distance to the retrained model against the requesting client's bytes.

    The distance is the divergence of the outputs on what is forgotten; where no group of a phase
    has one, it is that of the forgotten accuracy. What was retrained is at 0.
    """
    panels, rows = [], []
    drawn: dict[int, Group] = {}
    accuracy_alone = False
    for task, called in phases(groups).items():
        if not task:
            continue
        by_outputs = any(_divergence(group, task) for group in groups)
        accuracy_alone |= not by_outputs
        curves = []
        for group in groups:
            far = _divergence(group, task) if by_outputs else _gap(benchmark, group, task)
            cost = group.of_phase(task, lambda phase: phase.requesting_bytes)
            if all(cell.setting("unlearning") == "retrain" for cell in group.cells):
                far = Summary(0.0, None, len(group.cells))
            if far is None or cost is None:
                continue
            style = list(drawn).index(group.number) if group.number in drawn else len(drawn)
            drawn[group.number] = group
            unit = "bits" if by_outputs else "share"
            points = said(far, unit).replace("%", "points")
            words = f"{points} for {said(cost, 'bytes')}"
            point = Point(cost.mean, far.mean, words, far.deviation or 0.0)
            curves.append(Curve(group.name().text, (point,), style, line=False))
            kind = (
                "divergence on the forgotten, bits" if by_outputs else "forgotten accuracy, share"
            )
            rows.append((*group.labels(), Label(called), Label(kind), far, cost))
        if len(curves) < 2:
            continue
        costs = [curve.points[0].x for curve in curves]
        values = [curve.points[0].y for curve in curves]
        x = logarithmic("requesting client's bytes, log scale", costs, size, min(costs) <= 0)
        y = (
            linear("divergence, bits", [0.0, *values], plain)
            if by_outputs
            else linear("difference, points", [0.0, *values], lambda share: plain(100 * share))
        )
        heading = f"{called[:1].upper()}{called[1:]}"
        text = in_words(heading, curves, "bytes", "distance to the retrained model")
        panels.append(Panel(heading, chart([_front(curves), *curves], x, y, text)))
    if not panels:
        return None
    columns = (
        *axis_columns(groups[0]),
        Column("phase", "phase"),
        Column("distance_is", "distance is of"),
        Column("distance", "distance", unit="value", better="lower"),
        Column("requesting_bytes", "requesting client's bytes", unit="bytes", better="lower"),
    )
    kind = (
        "Distance is that of the forgotten accuracy (outputs were not compared)."
        if accuracy_alone
        else "Distance is the Jensen-Shannon divergence of the outputs on what is forgotten."
    )
    return Figure(
        "forgetting-against-cost",
        "Forgetting against cost",
        f"Down is nearer to the retrained model, left is cheaper for the client that asks. {kind} "
        "The dotted line joins what nothing else beats in both.",
        tuple(panels),
        legend(drawn.values(), line=False),
        Table("figure-forgetting-against-cost", "Forgetting against cost", columns, tuple(rows)),
    )


def _divergence(group: Group, task: int) -> Summary | None:
    """Return the mean divergence on what was forgotten; 0 of what was retrained itself."""

    def measure(cell: Cell) -> float | None:
        phase = cell.phase(task)
        return None if phase is None else phase.divergence.get("forgotten")

    return group.summary(measure)


def _gap(benchmark: Benchmark, group: Group, task: int) -> Summary | None:
    def measure(cell: Cell) -> float | None:
        if cell.setting("unlearning") == "retrain":
            return 0.0
        gap = accuracy_gap(benchmark, cell, task, "forgotten")
        return None if gap is None else abs(gap)

    return group.summary(measure)


def _front(curves: Sequence[Curve]) -> Curve:
    """Return the line through what no other is at least as good as in both, and better in one."""
    points = [curve.points[0] for curve in curves]
    best = [
        one
        for one in points
        if not any(
            other.x <= one.x and other.y <= one.y and (other.x, other.y) != (one.x, one.y)
            for other in points
        )
    ]
    ordered = tuple(sorted(best, key=lambda point: (point.x, -point.y)))
    return Curve("front", ordered, 7, dashed=True, markers=False)
