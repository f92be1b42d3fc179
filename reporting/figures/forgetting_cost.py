"""The distance of a forgetting to retraining, against its cost for the client that asked."""

from __future__ import annotations

from collections.abc import Sequence

from split_unlearning.reporting.figures.chart import Axis, Chart, Curve, Point, describe
from split_unlearning.reporting.figures.figure import Figure, Panel, legend
from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.results import Results
from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, Summary, capital, in_words, plain, size


def forgetting_against_cost(results: Results) -> Figure | None:
    """Return distance to the retrained model against the requesting client's bytes.

    The distance is the divergence of the outputs on what is forgotten; where no group of a phase
    has one, it is that of the forgotten accuracy. What was retrained is at 0.
    """
    panels, rows = [], []
    drawn: dict[int, Group] = {}
    accuracy_alone = False
    for task, called in results.phases.items():
        if not task:
            continue
        by_outputs = any(results.of(one, task, "divergence/forgotten") for one in results.groups)
        accuracy_alone |= not by_outputs
        measure, unit, kind = (
            ("divergence/forgotten", "bits", "divergence on the forgotten, bits")
            if by_outputs
            else ("distance/unlearned", "share", "forgotten accuracy, share")
        )
        curves = []
        for group in results.groups:
            far = results.of(group, task, measure)
            cost = results.of(group, task, "requesting/bytes")
            if all(cell.setting("unlearning") == "retrain" for cell in group.cells):
                far = Summary(0.0, None, len(group.cells))
            if far is None or cost is None:
                continue
            drawn.setdefault(group.number, group)
            distance = in_words(far, unit).replace("%", "points")
            words = f"{distance} for {in_words(cost, 'bytes')}"
            point = Point(cost.mean, far.mean, words, far.deviation or 0.0)
            style = list(drawn).index(group.number)
            curves.append(Curve(group.name().text, (point,), style, line=False))
            rows.append((*group.labels(), Label(called), Label(kind), far, cost))
        if len(curves) < 2:
            continue
        x = Axis("requesting client's bytes, log scale", size, log=True)
        y = (
            Axis("divergence, bits", low=0.0)
            if by_outputs
            else Axis("difference, points", lambda share: plain(100 * share), low=0.0)
        )
        heading = capital(called)
        words = describe(heading, curves, "bytes", "distance to the retrained model")
        panels.append(Panel(heading, Chart((_front(curves), *curves), x, y, words)))
    if not panels:
        return None
    columns = (
        *axis_columns(results.groups[0]),
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
        make_table("figure-forgetting-against-cost", "Forgetting against cost", columns, rows),
    )


def _front(curves: Sequence[Curve]) -> Curve:
    """Return the line through the points that no other is at least as good as, in both."""
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
