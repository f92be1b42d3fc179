"""What an attack can still tell of who was in the training data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from split_unlearning.reporting.cells import Membership, Phase
from split_unlearning.reporting.groups import Group
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Column, Table
from split_unlearning.reporting.tables.rows import Measured, phases, tabulate

_WHEN = {"before": "before", "after": "after", "reference": "retrained"}
_RATES = {
    "hit_rate": "hit rate",
    "false_positives": "false-positive rate",
    "auc": "AUC",
    "tpr_at_low_fpr": "TPR at 1 % FPR",
}

_NOTES = (
    "The hit rate is the share of the forgotten samples that the attack calls members; beside it, "
    "how often it calls those members that never were (false-positive rate), and what does not "
    "depend on a threshold (AUC, TPR at 1 % FPR).",
    "before: the model before the request; retrained: the model trained without the forgotten "
    "samples, which is what forgetting aims at. An attack that does worse than on the retrained "
    "model means over-forgetting, not success: best is the smallest difference.",
)


def membership_tables(groups: Sequence[Group]) -> list[Table]:
    """Return a table for each request whose membership was attacked; else, for learning."""
    called = phases(groups)
    tables = [_table(groups, task, name) for task, name in called.items() if task]
    found = [table for table in tables if table.measures]
    if not found and 0 in called:
        learned = _table(groups, 0, called[0])
        found = [learned] if learned.measures else []
    return found


def _table(groups: Sequence[Group], task: int, called: str) -> Table:
    measured: list[Measured] = [
        (
            Column("members", "members", "attacked", "count"),
            partial(_rate, task=task, when="after", rate="members"),
        ),
        (
            Column("non_members", "non-members", "attacked", "count"),
            partial(_rate, task=task, when="after", rate="non_members"),
        ),
    ]
    for rate, name in _RATES.items():
        unit = "value" if rate == "auc" else "share"
        for when, said in _WHEN.items():
            column = Column(f"{rate}_{when}", said, name, unit)
            measured.append((column, partial(_rate, task=task, when=when, rate=rate)))
        if rate in ("hit_rate", "auc"):
            column = Column(f"{rate}_gap", "after - retrained", name, unit, "zero", signed=True)
            measured.append((column, partial(_gap, task=task, rate=rate)))
    for rate in ("hit_rate", "auc"):
        unit = "value" if rate == "auc" else "share"
        column = Column(f"pair_{rate}", _RATES[rate], "attack on before and after", unit)
        measured.append((column, partial(_rate, task=task, when="pair", rate=rate)))
    slug = f"membership-request-{task}" if task else "membership-learn"
    title = f"Membership after {called}"
    return tabulate(slug, title, groups, measured, _NOTES, only_measured=True)


def _rate(group: Group, task: int, when: str, rate: str) -> Summary | None:
    return group.of_phase(task, lambda phase: _of(phase, when, rate))


def _gap(group: Group, task: int, rate: str) -> Summary | None:
    def gap(phase: Phase) -> float | None:
        after, retrained = _of(phase, "after", rate), _of(phase, "reference", rate)
        return None if after is None or retrained is None else after - retrained

    return group.of_phase(task, gap)


def _of(phase: Phase, when: str, rate: str) -> float | None:
    found: Membership | None = phase.membership.get(when)
    return None if found is None else getattr(found, rate)
