"""How well it was learned and forgotten, and what that cost whom."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from split_unlearning.reporting.groups import Group, shown
from split_unlearning.reporting.statistic import Summary
from split_unlearning.reporting.table import Better, Column, Table
from split_unlearning.reporting.tables.rows import Measured, phases, tabulate, whole_labels


def accuracy_table(groups: Sequence[Group]) -> Table:
    """Return accuracies after learning and after each request, of each data set if several."""
    measured: list[Measured] = []
    notes = ["Accuracy on the clients' test splits."]
    undecided = False
    data_sets = _data_sets(groups)
    for task, called in phases(groups).items():
        # Of a share of a label, a model that never saw it still knows some: less is not better.
        lower: Better = "lower" if whole_labels(groups, task) else ""
        undecided |= bool(task) and not lower
        for name, better in (("forgotten", lower if task else "higher"), ("retained", "higher")):
            column = Column(f"{_stem(task)}_{name}", name, f"after {called}", "share", better)
            measured.append((column, partial(_accuracy, task=task, name=name)))
        for data_set in data_sets:
            # What is forgotten and what is retained are both in it.
            better = "" if task else "higher"
            slug, name = f"{_stem(task)}_{data_set}", shown(data_set).text
            column = Column(slug, name, f"after {called}", "share", better)
            measured.append((column, partial(_of_data_set, task=task, name=data_set)))
    if data_sets:
        notes.append(
            "Where clients hold several data sets, each one's is over the test samples of all who "
            "hold it, with those of forgotten labels."
        )
    if undecided:
        notes.append(
            "Where a share of a label is forgotten, the accuracy to aim at is that of the model "
            "retrained without it: neither more nor less is better."
        )
    return tabulate("accuracy", "Accuracy", groups, measured, notes)


_COSTS: tuple[tuple[str, str, str, str, Better], ...] = (
    ("seconds", "computing", "computing, a client", "seconds", "lower"),
    ("pretraining", "pre_training", "of which pre-training", "seconds", ""),
    ("bytes_up", "upload", "upload, a client", "bytes", "lower"),
    ("bytes_down", "download", "download, a client", "bytes", "lower"),
    ("wire_up", "upload_on_the_wire", "upload on the wire", "seconds", "lower"),
)


def cost_tables(groups: Sequence[Group]) -> list[Table]:
    """Return what each phase cost clients and server, a table a phase."""
    rates = sorted(
        {float(cell.config.get("bandwidth-mbps", 100)) for g in groups for cell in g.cells}
    )
    at = " or ".join(f"{rate:g}" for rate in rates)
    notes = (
        "A client's own cost, the mean of those who ask to forget and of all others.",
        "Computing is measured and depends on the machine; it contains pre-training where there "
        "is any. Bytes are counted where they cross.",
        f"Seconds on the wire are computed from the bytes on the way up, at {at} Mbps.",
    )
    tables = []
    for task, called in phases(groups).items():
        measured: list[Measured] = []
        for name, slug, group, unit, better in _COSTS:
            for requested, who in ((True, "requesting"), (False, "other")):
                column = Column(f"{slug}_{who}", who, group, unit, better)
                measured.append((column, partial(_cost, task=task, name=name, requested=requested)))
        column = Column("server_seconds", "training", "server", "seconds", "lower")
        measured.append((column, partial(_server, task=task)))
        title = f"Cost of {called}"
        tables.append(tabulate(f"cost-{_stem(task)}", title, groups, measured, notes))
    return tables


def _stem(task: int) -> str:
    return f"request-{task}" if task else "learn"


def _data_sets(groups: Sequence[Group]) -> list[str]:
    """Return the names of all data sets that accuracy is told apart by, as they first appear."""
    return list(
        dict.fromkeys(
            name
            for group in groups
            for cell in group.cells
            for phase in cell.phases
            for name in phase.by_data_set
        )
    )


def _of_data_set(group: Group, task: int, name: str) -> Summary | None:
    return group.of_phase(task, lambda phase: phase.by_data_set.get(name))


def _accuracy(group: Group, task: int, name: str) -> Summary | None:
    return group.of_phase(task, lambda phase: getattr(phase, name))


def _cost(group: Group, task: int, name: str, requested: bool) -> Summary | None:
    return group.of_phase(task, lambda phase: phase.mean_cost(name, requested))


def _server(group: Group, task: int) -> Summary | None:
    return group.of_phase(task, lambda phase: phase.server_seconds)
