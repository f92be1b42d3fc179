"""Membership attacks at every threshold: true positives by false positives."""

from __future__ import annotations

import numpy as np

from split_unlearning.reporting.figures.chart import Axis, Chart, Curve, Point, share_axis
from split_unlearning.reporting.figures.figure import Figure, Key, Panel
from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.results import Results
from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, Summary, Value, percent

_WHEN = {
    "membership_before": ("before forgetting", 1),
    "membership": ("after forgetting", 0),
    "membership_reference": ("retrained model", 2),
    "membership_pair": ("attack on before and after", 3),
}
_GUESSING = 7
_SHOWN = 6  # so many panels are not folded away

Roc = tuple[tuple[float, float], ...]


def membership_roc(results: Results) -> Figure | None:
    """Return a chart of each group and request, None if no attack took its rates down."""
    panels: list[Panel] = []
    low: list[Panel] = []
    rows: list[tuple[Value, ...]] = []
    used: set[str] = set()
    requests = [task for task in results.phases if task] or list(results.phases)
    for task in requests:
        called = results.phases[task]
        for group in results.groups:
            curves = {when: found for when in _WHEN if (found := _mean_roc(group, task, when))}
            if not curves:
                continue
            used |= set(curves)
            heading = group.name().text + (f", {called}" if len(requests) > 1 else "")
            panels.append(_panel(heading, curves, share_axis("false positives")))
            low.append(_panel(heading, curves, _logarithmic(curves)))
            rows += [
                (
                    *group.labels(),
                    *(Label(called), Label(_WHEN[when][0])),
                    *(Summary(false), Summary(true)),
                )
                for when, curve in curves.items()
                for false, true in curve
            ]
    if not panels:
        return None
    columns = (
        *axis_columns(results.groups[0]),
        Column("phase", "phase"),
        Column("model", "model"),
        Column("false_positive_rate", "false positives", unit="share"),
        Column("true_positive_rate", "true positives", unit="share"),
    )
    folded = [("Few false positives (logarithmic axis)", tuple(low))]
    if len(panels) > _SHOWN:
        folded.insert(0, (f"The other {len(panels) - _SHOWN}", tuple(panels[_SHOWN:])))
    keys = [
        Key(Label(name), style, marker=False)
        for when, (name, style) in _WHEN.items()
        if when in used
    ]
    return Figure(
        "membership-roc",
        "Membership attack at every threshold",
        "True positives by false positives, averaged over the seeds. On the diagonal the attack "
        "guesses. Forgetting aims at the retrained model's curve, not below it.",
        tuple(panels[:_SHOWN]),
        (*keys, Key(Label("guessing"), _GUESSING, dashed=True)),
        make_table("figure-membership-roc", "Membership attack", columns, rows),
        tuple(folded),
    )


def _mean_roc(group: Group, task: int, when: str) -> Roc:
    """Return the mean over the seeds of the true-positive rate at each false-positive rate."""
    phases = [phase for cell in group.cells if (phase := cell.phase(task))]
    found = [phase.rocs[when] for phase in phases if when in phase.rocs]
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
    return tuple(zip(grid.tolist(), np.mean(heights, axis=0).tolist(), strict=True))


def _panel(heading: str, curves: dict[str, Roc], x: Axis) -> Panel:
    ends = np.geomspace(x.low or 1e-4, 1, 61) if x.log else np.array([0.0, 1.0])
    diagonal = tuple(Point(end, end) for end in ends.tolist())
    drawn = [Curve("guessing", diagonal, _GUESSING, dashed=True, markers=False)]
    for when, curve in curves.items():
        name, style = _WHEN[when]
        points = tuple(Point(false, true) for false, true in curve)
        drawn.append(Curve(name, points, style, markers=False, steps=True))
    words = f"{heading}: true positives by false positives. " + " ".join(
        f"{_WHEN[when][0]}: {percent(round(_at(curve, 0.1), 4))} % of members are found with 10 % "
        "false positives."
        for when, curve in curves.items()
    )
    return Panel(heading, Chart(tuple(drawn), x, share_axis("true positives"), words))


def _logarithmic(curves: dict[str, Roc]) -> Axis:
    positive = [false for curve in curves.values() for false, _ in curve if false > 0]
    least = min(max(min(positive, default=0.01), 1e-4), 0.1)
    low = 10.0 ** np.floor(np.log10(least) + 1e-9)
    return Axis("false positives, %, log scale", percent, float(low), 1.0, log=True)


def _at(curve: Roc, false_positives: float) -> float:
    return max((true for false, true in curve if false <= false_positives), default=0.0)
