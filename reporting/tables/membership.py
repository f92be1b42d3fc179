"""Attacks that tell which samples were in the training data."""

from __future__ import annotations

from split_unlearning.reporting.results import Measured, Results, stem
from split_unlearning.reporting.table import Column, Table

# An attack's place in metrics.json, the end of its columns' slugs, and their name.
_WHEN = (
    ("membership_before", "before", "before"),
    ("membership", "after", "after"),
    ("membership_reference", "reference", "retrained"),
)
_RATES = {
    "hit_rate": ("hit_rate", "hit rate", "share"),
    "false_positive_rate": ("false_positives", "false-positive rate", "share"),
    "auc": ("auc", "AUC", "value"),
    "tpr_at_1_percent_fpr": ("tpr_at_low_fpr", "TPR at 1 % FPR", "share"),
}
_PAIR = "attack on before and after"
_NOTES = (
    "The hit rate is the share of the forgotten samples that the attack calls members; beside it, "
    "how often it calls those members that never were (false-positive rate), and what does not "
    "depend on a threshold (AUC, TPR at 1 % FPR).",
    "before: the model before the request; retrained: the model trained without the forgotten "
    "samples, which is what forgetting aims at. An attack that does worse than on the retrained "
    "model means over-forgetting, not success: best is the smallest difference.",
)


def membership_tables(results: Results) -> list[Table]:
    """Return a table for each request whose membership was attacked; else, for learning."""
    tables = [_table(results, task) for task in results.phases if task]
    found = [table for table in tables if table.measures]
    if not found and 0 in results.phases:
        learned = _table(results, 0)
        found = [learned] if learned.measures else []
    return found


def _table(results: Results, task: int) -> Table:
    columns = {
        f"membership/{slug}": Column(slug, name, "attacked", "count")
        for slug, name in (("members", "members"), ("non_members", "non-members"))
    }
    for rate, (slug, group, unit) in _RATES.items():
        for attack, when, name in _WHEN:
            columns[f"{attack}/{rate}"] = Column(f"{slug}_{when}", name, group, unit)
        columns[f"membership_gap/{rate}"] = Column(
            f"{slug}_gap", "after - retrained", group, unit, "zero", signed=True
        )
    for rate in ("hit_rate", "auc"):
        _, name, unit = _RATES[rate]
        columns[f"membership_pair/{rate}"] = Column(
            f"pair_{rate}", name, "attack on before and after", unit
        )
    measured = [Measured(column, task, name) for name, column in columns.items()]
    title = f"Membership after {results.phases[task]}"
    return results.tabulate(f"membership-{stem(task)}", title, measured, _NOTES, True)
