"""Accuracy by epoch (the paper's Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence

from split_unlearning.reporting.figures.chart import Curve, Point, chart
from split_unlearning.reporting.figures.figure import Figure, Panel, in_words, legend, styles
from split_unlearning.reporting.figures.scale import linear
from split_unlearning.reporting.figures.words import all_shares, plain, said, shares
from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.statistic import Summary, summarise
from split_unlearning.reporting.table import Column, Label, Table
from split_unlearning.reporting.tables.rows import phases


def accuracy_by_epoch(groups: Sequence[Group]) -> Figure | None:
    """Return accuracy by epoch in each phase, None if no run took it down."""
    drawn = [
        group for group in groups if any(p.by_epoch for cell in group.cells for p in cell.phases)
    ]
    style = styles(drawn)
    panels, rows = [], []
    for task, called in phases(groups).items():
        for name in ("forgotten", "retained"):
            curves = []
            for group in drawn:
                found = _by_epoch(group, task, name)
                if not found:
                    continue
                points = tuple(
                    Point(
                        epoch,
                        value.mean,
                        f"{said(value, 'share')} after epoch {epoch}",
                        value.deviation or 0.0,
                    )
                    for epoch, value in found.items()
                )
                name_of = group.name().text
                curves.append(Curve(name_of, points, style[group.number], band=True))
                rows += [
                    (
                        *group.labels(),
                        Label(called),
                        Label(name),
                        Summary(float(epoch)),
                        value,
                    )
                    for epoch, value in found.items()
                ]
            if not curves:
                continue
            epochs = [point.x for curve in curves for point in curve.points]
            values = [point.y for curve in curves for point in curve.points]
            y = all_shares("accuracy") if name == "forgotten" else shares("accuracy", values)
            heading = f"{called[:1].upper()}{called[1:]}: {name}"
            text = in_words(heading, curves, "epoch", "accuracy")
            panels.append(Panel(heading, chart(curves, linear("epoch", epochs, plain), y, text)))
    if not panels:
        return None
    columns = (
        *axis_columns(groups[0]),
        Column("phase", "phase"),
        Column("samples", "accuracy on"),
        Column("epoch", "epoch", unit="count"),
        Column("accuracy", "accuracy", unit="share"),
    )
    return Figure(
        "accuracy-by-epoch",
        "Accuracy by epoch",
        "Mean over the seeds; where there are several, the band is one standard deviation to both "
        "sides.",
        tuple(panels),
        legend(drawn),
        Table("figure-accuracy-by-epoch", "Accuracy by epoch", columns, tuple(rows)),
    )


def _by_epoch(group: Group, task: int, name: str) -> dict[int, Summary]:
    measured: dict[int, list[float | None]] = {}
    for cell in group.cells:
        phase = cell.phase(task)
        for one in phase.by_epoch if phase else ():
            measured.setdefault(one.epoch, []).append(getattr(one, name))
    found = {epoch: summarise(values) for epoch, values in sorted(measured.items())}
    return {epoch: value for epoch, value in found.items() if value is not None}
