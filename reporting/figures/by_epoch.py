"""Accuracy by epoch (the paper's Fig. 7)."""

from __future__ import annotations

from split_unlearning.reporting.figures.chart import (
    Axis,
    Chart,
    Curve,
    Point,
    describe,
    share_axis,
)
from split_unlearning.reporting.figures.figure import Figure, Panel, legend
from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.results import Results
from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, Summary, capital, in_words, summarise


def accuracy_by_epoch(results: Results) -> Figure | None:
    """Return accuracy by epoch in each phase, None if no run took it down."""
    drawn = [
        group
        for group in results.groups
        if any(any(p.by_epoch.values()) for cell in group.cells for p in cell.phases)
    ]
    panels, rows = [], []
    for task, called in results.phases.items():
        for name in ("forgotten", "retained"):
            curves = []
            for style, group in enumerate(drawn):
                found = _by_epoch(group, task, name)
                if not found:
                    continue
                points = tuple(
                    Point(
                        epoch,
                        value.mean,
                        f"{in_words(value, 'share')} after epoch {epoch}",
                        value.deviation or 0.0,
                    )
                    for epoch, value in found.items()
                )
                curves.append(Curve(group.name().text, points, style, band=True))
                rows += [
                    (*group.labels(), Label(called), Label(name), Summary(float(epoch)), value)
                    for epoch, value in found.items()
                ]
            if curves:
                heading = f"{capital(called)}: {name}"
                words = describe(heading, curves, "epoch", "accuracy")
                y = share_axis("accuracy", whole=name == "forgotten")
                panels.append(Panel(heading, Chart(tuple(curves), Axis("epoch"), y, words)))
    if not panels:
        return None
    columns = (
        *axis_columns(results.groups[0]),
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
        make_table("figure-accuracy-by-epoch", "Accuracy by epoch", columns, rows),
    )


def _by_epoch(group: Group, task: int, name: str) -> dict[int, Summary]:
    measured: dict[int, list[float]] = {}
    for cell in group.cells:
        phase = cell.phase(task)
        for epoch, value in (phase.by_epoch.get(name, {}) if phase else {}).items():
            measured.setdefault(epoch, []).append(value)
    found = {epoch: summarise(values) for epoch, values in sorted(measured.items())}
    return {epoch: value for epoch, value in found.items() if value is not None}
