"""Accuracy after learning and after each request."""

from __future__ import annotations

from split_unlearning.reporting.groups import shown
from split_unlearning.reporting.results import Measured, Results, stem
from split_unlearning.reporting.table import Better, Column, Table


def accuracy_table(results: Results) -> Table:
    """Return accuracies after each phase, of each data set where clients hold several."""
    measured: list[Measured] = []
    notes = ["Accuracy on the clients' test splits."]
    data_sets = results.names("accuracy/per_task/")
    for task, called in results.phases.items():
        # Of a share of a label, a model that never saw it still knows some: less is not better.
        lower: Better = "lower" if _whole_labels(results, task) else ""
        columns: list[tuple[str, str, Better]] = [
            ("unlearned", "forgotten", lower if task else "higher"),
            ("retained", "retained", "higher"),
            # A data set holds both what is forgotten and what is retained.
            *((f"per_task/{one}", shown(one).text, "" if task else "higher") for one in data_sets),
        ]
        for measure, name, better in columns:
            _, of_data_set, slug = measure.partition("per_task/")
            slug = f"{stem(task)}_{slug if of_data_set else name}"
            column = Column(slug, name, f"after {called}", "share", better)
            measured.append(Measured(column, task, f"accuracy/{measure}"))
    if data_sets:
        notes.append(
            "Where clients hold several data sets, each one's is over the test samples of all who "
            "hold it, with those of forgotten labels."
        )
    if not all(_whole_labels(results, task) for task in results.phases if task):
        notes.append(
            "Where a share of a label is forgotten, the accuracy to aim at is that of the model "
            "retrained without it: neither more nor less is better."
        )
    return results.tabulate("accuracy", "Accuracy", measured, notes)


def _whole_labels(results: Results, task: int) -> bool:
    """Say whether a request means all samples of a label, or of a client, in every cell."""
    return all(
        part.strip().startswith(("class:", "client:"))
        for cell in results.benchmark.cells
        for phase in cell.phases
        if phase.task == task
        for part in phase.request.split(";")
    )
