"""Clustering accuracy: how many labels each attack found (the paper's Figs. 6 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from split_unlearning.reporting.figures.figure import Figure, Panel
from split_unlearning.reporting.figures.shades import shades
from split_unlearning.reporting.figures.words import said
from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Label, Table, Value
from split_unlearning.reporting.tables.label_matching import matched
from split_unlearning.reporting.tables.rows import phases

_KINDS = ("perfect", "inclusive")


def clustering_accuracy(groups: Sequence[Group]) -> Figure | None:
    """Return what each attack on masked labels reached, None if none was run."""
    attacked = [group for group in groups if _attacks([group])]
    if not attacked:
        return None
    names = _attacks(attacked)
    settings = [group.name().text for group in attacked]
    panels: list[Panel] = []
    rows: list[tuple[Value, ...]] = []
    for task, called in phases(attacked).items():
        reached = [[_reached(group, task, name) for name in names] for group in attacked]
        if not any(both for row in reached for both in row):
            continue
        for place, kind in enumerate(_KINDS):
            shares = [[both[place] if both else None for both in row] for row in reached]
            heading = f"{kind.capitalize()} accuracy after {called}, in percent"
            text = f"{heading}. " + " ".join(
                f"{setting}: {_listed(names, row)}."
                for setting, row in zip(settings, shares, strict=True)
            )
            percents = [[round(100 * one.mean) if one else None for one in row] for row in shares]
            panels.append(Panel(heading, shades(settings, names, percents, text, 100), wide=True))
        rows += [
            (*group.labels(), Label(called), Label(name), *both)
            for group, row in zip(attacked, reached, strict=True)
            for name, both in zip(names, row, strict=True)
            if both
        ]
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
        "How many real labels each attack (column) puts together from their masked ones. Perfect: "
        "exactly; inclusive: perhaps with others. The lighter, the less the server is told; no "
        "number is 0.",
        tuple(panels),
        (),
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


def _reached(group: Group, task: int, attack: str) -> tuple[Summary, Summary] | None:
    """Return the perfect and the inclusive accuracy of an attack, None if it was not run."""
    perfect, inclusive = (
        group.of_phase(task, partial(matched, attack=attack, name=kind)) for kind in _KINDS
    )
    return None if perfect is None or inclusive is None else (perfect, inclusive)


def _listed(names: Sequence[str], shares: Sequence[Summary | None]) -> str:
    pairs = zip(names, shares, strict=True)
    return "; ".join(f"{name} {said(one, 'share')}" for name, one in pairs if one)
