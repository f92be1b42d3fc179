"""How far a model that has forgotten is from the model retrained without what it forgot."""

from __future__ import annotations

from split_unlearning.reporting.results import Measured, Results, stem
from split_unlearning.reporting.table import Column, Table

_NOTE = (
    "Accuracy: points above the model that was retrained with the same seed. Outputs: mean "
    "Jensen-Shannon divergence between the two models' predictions, 0 where they say the same, 1 "
    "bit where they never agree."
)
_NOTES = {
    "relearn": "Relearning: epochs of the server segment alone until the forgotten samples are "
    "right as often as before; a model that has forgotten needs as many as the retrained one. "
    "Nothing where the run's number of epochs was not enough.",
    "backdoor": "Backdoor: share of triggered test samples that are taken for the planted label; "
    "planted in what is then forgotten.",
}
_GAP, _RELEARN = "accuracy - retrained's", "epochs to relearn"
_COLUMNS = {
    **{
        f"gap/{key}": Column(f"accuracy_{name}_gap", name, _GAP, "share", "zero", signed=True)
        for key, name in (("unlearned", "forgotten"), ("retained", "retained"))
    },
    **{
        f"divergence/{name}": Column(f"divergence_{name}_bits", name, "outputs", "bits", "lower")
        for name in ("forgotten", "retained", "test")
    },
    "relearn/epochs": Column("relearn_epochs", "this model", _RELEARN, "count"),
    "relearn/reference_epochs": Column("relearn_reference_epochs", "retrained", _RELEARN, "count"),
    "backdoor/success_before": Column("backdoor_success_before", "before", "backdoor", "share"),
    "backdoor/success": Column("backdoor_success", "after", "backdoor", "share"),
    "backdoor/reference_success": Column(
        "backdoor_reference_success", "retrained", "backdoor", "share"
    ),
}


def distance_tables(results: Results) -> list[Table]:
    """Return a table for each request of which anything was compared with a retrained model."""
    found = [_table(results, task) for task in results.phases if task]
    return [table for table in found if table.measures]


def _table(results: Results, task: int) -> Table:
    measured = [Measured(column, task, name) for name, column in _COLUMNS.items()]
    notes = [
        note
        for kind, note in _NOTES.items()
        if any(
            results.of(group, task, one.measure)
            for group in results.groups
            for one in measured
            if one.measure.startswith(kind)
        )
    ]
    title = f"Distance to the retrained model after {results.phases[task]}"
    return results.tabulate(f"distance-{stem(task)}", title, measured, [_NOTE, *notes], True)
