"""What the tables of measures share: a row a group, a column a measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from split_unlearning.reporting.groups import Group, axis_columns
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Table, Value

Measured = tuple[Column, Callable[[Group], Summary | None]]


def tabulate(
    slug: str,
    title: str,
    groups: Sequence[Group],
    measured: Sequence[Measured],
    notes: Sequence[str] = (),
    only_measured: bool = False,
) -> Table:
    """Return a table with a row for each group.

    Parameters
    ----------
    slug, title, notes
        Of the table.
    groups : sequence of Group
        At least one.
    measured : sequence of pairs of Column and callable
        What is measured of a group.
    only_measured : bool
        Whether groups of which nothing is known but their seeds are left out.
    """
    axes = axis_columns(groups[0])
    rows: list[tuple[Value, ...]] = []
    for group in groups:
        values = tuple(measure(group) for _, measure in measured)
        if not only_measured or any(value is not None for value in values):
            rows.append((*group.labels(), _seeds(group), *values))
    columns = (
        *axes,
        Column("seeds", "seeds", unit="count", fixed=True),
        *(column for column, _ in measured),
    )
    return Table(slug, title, columns, tuple(rows), tuple(notes))


def phases(groups: Sequence[Group]) -> dict[int, str]:
    """Return what each phase is called, by its task: learning, then each request.

    A request that all cells share is named; else its number is.
    """
    requests: dict[int, set[str]] = {}
    for group in groups:
        for cell in group.cells:
            for phase in cell.phases:
                requests.setdefault(phase.task, set()).add(phase.request)
    forgotten = sum(task > 0 for task in requests)
    return {task: _called(task, texts, forgotten) for task, texts in sorted(requests.items())}


def whole_labels(groups: Sequence[Group], task: int) -> bool:
    """Say whether a request means all samples of a label, or of a client, in every cell."""
    found = [
        phase.request
        for group in groups
        for cell in group.cells
        for phase in cell.phases
        if phase.task == task
    ]
    return bool(found) and all(
        part.strip().startswith(("class:", "client:")) for text in found for part in text.split(";")
    )


def _called(task: int, requests: set[str], forgotten: int) -> str:
    if task == 0:
        return "learning"
    if len(requests) == 1:
        return f"forgetting {next(iter(requests))}"
    return "forgetting" if forgotten == 1 else f"forgetting, request {task}"


def _seeds(group: Group) -> Summary:
    return Summary(float(len({cell.seed for cell in group.cells})))
