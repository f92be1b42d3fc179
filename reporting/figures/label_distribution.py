"""Who holds how many training samples of which label."""

from __future__ import annotations

from collections.abc import Sequence

from split_unlearning.reporting.cells import Cell, Distribution
from split_unlearning.reporting.figures.figure import Figure, Panel
from split_unlearning.reporting.figures.shades import shades
from split_unlearning.reporting.groups import shown
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Label, Table, Value


def label_distribution(cells: Sequence[Cell]) -> Figure | None:
    """Return a chart for each way in which samples are dealt, None if no run says it.

    Seeds deal differently: drawn is that of the first, the data have all.
    """
    panels: list[Panel] = []
    rows: list[tuple[Value, ...]] = []
    seen: set[tuple[object, ...]] = set()
    drawn: set[tuple[str, ...]] = set()
    for cell in sorted(cells, key=lambda one: one.seed):
        found = cell.distribution
        if found is None:
            continue
        dealt = tuple(str(cell.setting(key)) for key in ("dataset", "distribution"))
        if (dealt, cell.seed, found) in seen:
            continue
        seen.add((dealt, cell.seed, found))
        rows += _rows(cell, found)
        if (*dealt, str(len(found.train))) not in drawn:
            drawn.add((*dealt, str(len(found.train))))
            panels.append(_panel(cell, found))
    if not panels:
        return None
    columns = (
        Column("dataset", "dataset"),
        Column("distribution", "distribution"),
        Column("seed", "seed"),
        Column("client", "client"),
        Column("label", "label"),
        Column("samples", "training samples", unit="count"),
    )
    return Figure(
        "label-distribution",
        "Who holds which labels",
        "Training samples of each client (row) and label (column), as the first seed deals them.",
        tuple(panels),
        (),
        Table("figure-label-distribution", "Training samples", columns, tuple(rows)),
    )


def _panel(cell: Cell, found: Distribution) -> Panel:
    names = [f"client {client}" for client in range(len(found.train))]
    dataset = shown(cell.setting("dataset")).text
    heading = f"{dataset}, {cell.setting('distribution')} (seed {cell.seed})"
    text = f"{heading}. " + " ".join(
        _held(name, row, found) for name, row in zip(names, found.train, strict=True)
    )
    return Panel(heading, shades(names, found.labels, found.train, text), wide=True)


def _held(name: str, row: Sequence[int], found: Distribution) -> str:
    held = [f"{count} of {label}" for label, count in zip(found.labels, row, strict=True) if count]
    return f"{name} holds {', '.join(held) or 'nothing'}."


def _rows(cell: Cell, found: Distribution) -> list[tuple[Value, ...]]:
    return [
        (
            shown(cell.setting("dataset")),
            Label(str(cell.setting("distribution"))),
            Label(str(cell.seed)),
            Label(str(client)),
            Label(label),
            Summary(float(count)),
        )
        for client, row in enumerate(found.train)
        for label, count in zip(found.labels, row, strict=True)
    ]
