"""What the server can tell of masked labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from split_unlearning.reporting.cells import Phase, strongest
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Table
from split_unlearning.reporting.tables.rows import Measured, phases, tabulate

PAPERS = ("kmeans elbow", "kmeans q leaked", "birch elbow", "birch q leaked")

_NOTES = (
    "perfect: share of real labels whose masked labels are exactly one cluster; inclusive: share "
    "whose masked labels all lie in one cluster. Where the server is not to know, lower is better.",
    "strongest: whatever attack matched most labels perfectly in a cell; the others are the "
    "paper's, with the number of labels guessed (elbow) or known (q leaked). The figure below, and "
    "its CSV, have all attacks.",
)


def label_matching_tables(groups: Sequence[Group]) -> list[Table]:
    """Return a table for each phase in which masked labels were attacked."""
    found = [_table(groups, task, called) for task, called in phases(groups).items()]
    return [table for table in found if table.measures]


def _table(groups: Sequence[Group], task: int, called: str) -> Table:
    measured: list[Measured] = []
    for attack in ("strongest", *PAPERS):
        for name in ("perfect", "inclusive"):
            slug = f"{attack.replace(' ', '_')}_{name}"
            column = Column(slug, name, attack, "share", "lower")
            measured.append((column, partial(_found, task=task, attack=attack, name=name)))
    column = Column("vanished_are_one_label", "are one label", "masked labels gone", "share")
    measured.append((column, partial(_vanished, task=task)))
    slug = f"label-matching-request-{task}" if task else "label-matching-learn"
    title = f"Label matching after {called}"
    return tabulate(slug, title, groups, measured, _NOTES, only_measured=True)


def matched(phase: Phase, attack: str, name: str) -> float | None:
    """Return what an attack, or ``strongest``, reached; None if it was not run.

    Parameters
    ----------
    phase : Phase
        After which it was run.
    attack : str
        Its name.
    name : str
        ``perfect`` or ``inclusive``.
    """
    if attack == "strongest":
        found = strongest(phase.attacks)
    else:
        found = next((one for one in phase.attacks if one.name == attack), None)
    return None if found is None else getattr(found, name)


def _found(group: Group, task: int, attack: str, name: str) -> Summary | None:
    return group.of_phase(task, lambda phase: matched(phase, attack, name))


def _vanished(group: Group, task: int) -> Summary | None:
    def told(phase: Phase) -> float | None:
        known = phase.vanished_are_one_label
        return None if known is None else float(known)

    return group.of_phase(task, told)
