"""How well the server recognises masked labels."""

from __future__ import annotations

from split_unlearning.reporting.results import Measured, Results, stem
from split_unlearning.reporting.table import Column, Table

_ATTACKS = ("strongest", "kmeans elbow", "kmeans q leaked", "birch elbow", "birch q leaked")
_NOTES = (
    "perfect: share of real labels whose masked labels are exactly one cluster; inclusive: share "
    "whose masked labels all lie in one cluster. Where the server is not to know, lower is better.",
    "strongest: whatever attack matched most labels perfectly in a cell; the others are the "
    "paper's, with the number of labels guessed (elbow) or known (q leaked). The figure below, and "
    "its CSV, have all attacks.",
)


def label_matching_tables(results: Results) -> list[Table]:
    """Return a table for each phase in which masked labels were attacked."""
    found = [_table(results, task) for task in results.phases]
    return [table for table in found if table.measures]


def _table(results: Results, task: int) -> Table:
    measured = [
        Measured(
            Column(f"{attack.replace(' ', '_')}_{kind}", kind, attack, "share", "lower"),
            task,
            f"matching/{attack}/{kind}",
        )
        for attack in _ATTACKS
        for kind in ("perfect", "inclusive")
    ]
    column = Column("vanished_are_one_label", "are one label", "masked labels gone", "share")
    measured.append(Measured(column, task, "label_matching/vanished_are_one_label"))
    title = f"Label matching after {results.phases[task]}"
    return results.tabulate(f"label-matching-{stem(task)}", title, measured, _NOTES, True)
