"""Who holds how much, as a table that the command line and the app's log show."""

from __future__ import annotations

from io import StringIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from split_unlearning.simulations.data.dataset import Samples
from split_unlearning.simulations.data.distributions.plan import Plan

_SHOWN_CLIENTS = 20
_SHOWN_CLASSES = 12


def plan_table(plan: Plan, dataset: Samples) -> str:
    """Return a row for each client: train samples by label, and totals of both splits.

    It is plain text. Many labels are counted instead of listed, and of many clients the first are
    shown.
    """
    by_label = plan.label_counts(dataset.y_train, "train", dataset.num_classes)
    in_test = np.array([len(ids) for ids in plan.test])
    listed = dataset.num_classes <= _SHOWN_CLASSES
    width = max(1, 72 // dataset.num_classes - 1)
    names = [name[:width] for name in dataset.class_names] if listed else ["labels"]

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for header in ("client", *names, "train", "test"):
        table.add_column(header, justify="right")

    def add(title: str, row: NDArray[np.int64], test: int) -> None:
        cells = row if listed else [np.count_nonzero(row)]
        table.add_row(title, *(str(cell or "-") for cell in cells), str(row.sum()), str(test))

    for client in range(min(plan.num_clients, _SHOWN_CLIENTS)):
        add(str(client), by_label[client], in_test[client])
    add("all", by_label.sum(axis=0), in_test.sum())

    text = StringIO()
    Console(
        file=text, width=100, color_system=None, force_terminal=False, markup=False, emoji=False
    ).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    hidden = plan.num_clients - _SHOWN_CLIENTS
    if hidden > 0:
        lines.insert(-1, f"... and {hidden} more clients")
    return "\n".join(lines)
