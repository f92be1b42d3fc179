"""Membership attacks at every threshold: true positives by false positives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from split_unlearning.reporting.cells import Membership
from split_unlearning.reporting.figures.chart import Curve, Point, chart
from split_unlearning.reporting.figures.figure import Figure, Key, Panel
from split_unlearning.reporting.figures.scale import Scale, logarithmic
from split_unlearning.reporting.figures.words import all_shares, percent
from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Label, Table, Value
from split_unlearning.reporting.tables.rows import phases

_WHEN = {
    "before": ("before forgetting", 1),
    "after": ("after forgetting", 0),
    "reference": ("retrained model", 2),
    "pair": ("attack on before and after", 3),
}

_SHOWN = 6  # so many panels are not folded away

Roc = tuple[tuple[float, float], ...]


def membership_roc(groups: Sequence[Group]) -> Figure | None:
    """Return a chart of each group and request, None if no attack took its rates down."""
    panels: list[Panel] = []
    low: list[Panel] = []
    rows: list[tuple[Value, ...]] = []
    used: set[str] = set()
    called_all = phases(groups)
    requests = [task for task in called_all if task] or list(called_all)
    for task in requests:
        for group in groups:
            curves = {}
            for when in _WHEN:
                found = _mean_roc(group, task, when)
                if found:
                    curves[when] = found
            if not curves:
                continue
            used |= set(curves)
            heading = group.name().text
            if len(requests) > 1:
                heading += f", {called_all[task]}"
            panels.append(_panel(heading, curves, all_shares("false positives")))
            low.append(_panel(heading, curves, _logarithmic(curves)))
            rows += [
                (
                    *group.labels(),
                    Label(called_all[task]),
                    Label(_WHEN[when][0]),
                    Summary(false),
                    Summary(true),
                )
                for when, curve in curves.items()
                for false, true in curve
            ]
    if not panels:
        return None
    columns = (
        *axis_columns(groups[0]),
        Column("phase", "phase"),
        Column("model", "model"),
        Column("false_positive_rate", "false positives", unit="share"),
        Column("true_positive_rate", "true positives", unit="share"),
    )
    folded = [("Few false positives (logarithmic axis)", tuple(low))]
    if len(panels) > _SHOWN:
        folded.insert(0, (f"The other {len(panels) - _SHOWN}", tuple(panels[_SHOWN:])))
    keys = tuple(
        Key(Label(said), style, marker=False)
        for when, (said, style) in _WHEN.items()
        if when in used
    )
    return Figure(
        "membership-roc",
        "Membership attack at every threshold",
        "True positives by false positives, averaged over the seeds. On the diagonal the attack "
        "guesses. Forgetting aims at the retrained model's curve, not below it.",
        tuple(panels[:_SHOWN]),
        (*keys, Key(Label("guessing"), 7, dashed=True)),
        Table("figure-membership-roc", "Membership attack", columns, tuple(rows)),
        tuple(folded),
    )


def _mean_roc(group: Group, task: int, when: str) -> Roc:
    """Return the mean over the seeds of the true-positive rate at each false-positive rate."""
    found = []
    for cell in group.cells:
        phase = cell.phase(task)
        membership: Membership | None = phase.membership.get(when) if phase else None
        if membership and membership.roc:
            found.append(membership.roc)
    if not found:
        return ()
    if len(found) == 1:
        return tuple(zip(*found[0], strict=True))
    grid = np.unique(np.concatenate([np.asarray(false) for false, _ in found]))
    heights = []
    for false, true in found:
        # The best that the attack reaches with at most so many false positives.
        place = np.searchsorted(np.asarray(false), grid, side="right") - 1
        heights.append(np.where(place < 0, 0.0, np.asarray(true)[np.maximum(place, 0)]))
    mean = np.mean(heights, axis=0)
    return tuple(zip(grid.tolist(), mean.tolist(), strict=True))


def _panel(heading: str, curves: dict[str, Roc], x: Scale) -> Panel:
    diagonal = [x.low + (x.high - x.low) * step / 60 for step in range(61)]
    if x.kind == "log":
        diagonal = [x.low * (x.high / x.low) ** (step / 60) for step in range(61)]
    drawn = [
        Curve(
            "guessing",
            tuple(Point(one, one, f"{percent(one)} %") for one in diagonal),
            7,
            dashed=True,
            markers=False,
        )
    ]
    for when, curve in curves.items():
        name, style = _WHEN[when]
        points = tuple(Point(false, true, "") for false, true in curve)
        drawn.append(Curve(name, points, style, markers=False, steps=True))
    text = f"{heading}: true positives by false positives. " + " ".join(
        f"{_WHEN[when][0]}: {percent(round(_at(curve, 0.1), 4))} % of members are found with 10 % "
        "false positives."
        for when, curve in curves.items()
    )
    return Panel(heading, chart(drawn, x, all_shares("true positives"), text))


def _logarithmic(curves: dict[str, Roc]) -> Scale:
    positive = [false for curve in curves.values() for false, _ in curve if false > 0]
    least = max(min(positive, default=0.01), 1e-4)
    return logarithmic("false positives, %, log scale", [min(least, 0.1), 1.0], percent)


def _at(curve: Roc, false_positives: float) -> float:
    return max((true for false, true in curve if false <= false_positives), default=0.0)
