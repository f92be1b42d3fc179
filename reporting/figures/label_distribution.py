"""Training samples of each client and label."""

from __future__ import annotations

from collections.abc import Sequence

from split_unlearning.reporting.cells import Cell
from split_unlearning.reporting.figures.figure import Figure, Panel
from split_unlearning.reporting.figures.shades import Shades
from split_unlearning.reporting.groups import shown
from split_unlearning.reporting.result import Distribution
from split_unlearning.reporting.table import Column, make_table
from split_unlearning.reporting.values import Label, Summary, Value


def label_distribution(cells: Sequence[Cell]) -> Figure | None:
    """Return a picture for each way in which samples are dealt, None if no run says it.

    Each seed deals its own way: drawn is that of the first, the data have all.
    """
    panels: dict[tuple[object, ...], Panel] = {}
    rows: list[tuple[Value, ...]] = []
    seen: set[tuple[object, ...]] = set()
    for cell in sorted(cells, key=lambda one: one.seed):
        found = cell.distribution
        if found is None:
            continue
        dealt = (str(cell.setting("dataset")), str(cell.setting("distribution")))
        if (dealt, cell.seed, found) in seen:
            continue
        seen.add((dealt, cell.seed, found))
        rows += _rows(cell, found)
        panels.setdefault((dealt, len(found.train)), _panel(cell, found))
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
        tuple(panels.values()),
        (),
        make_table("figure-label-distribution", "Training samples", columns, rows),
    )


def _panel(cell: Cell, found: Distribution) -> Panel:
    names = tuple(f"client {client}" for client in range(len(found.train)))
    dataset = shown(cell.setting("dataset")).text
    heading = f"{dataset}, {cell.setting('distribution')} (seed {cell.seed})"
    words = f"{heading}. " + " ".join(
        _held(name, row, found) for name, row in zip(names, found.train, strict=True)
    )
    return Panel(heading, Shades(names, found.labels, found.train, words))


def _held(name: str, row: Sequence[int], found: Distribution) -> str:
    held = [f"{count} of {label}" for label, count in zip(found.labels, row, strict=True) if count]
    return f"{name} holds {', '.join(held) or 'nothing'}."


def _rows(cell: Cell, found: Distribution) -> list[tuple[Value, ...]]:
    dealt = (shown(cell.setting("dataset")), Label(str(cell.setting("distribution"))))
    return [
        (
            *dealt,
            *(Label(str(cell.seed)), Label(str(client)), Label(label)),
            Summary(float(count)),
        )
        for client, row in enumerate(found.train)
        for label, count in zip(found.labels, row, strict=True)
    ]
