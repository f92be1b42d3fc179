"""The cost of each phase for clients and server."""

from __future__ import annotations

from split_unlearning.reporting.results import Measured, Results, stem
from split_unlearning.reporting.table import Better, Column, Table

_COSTS: tuple[tuple[str, str, str, str, Better], ...] = (
    ("train_seconds", "computing", "computing, a client", "seconds", "lower"),
    ("pretrain_seconds", "pre_training", "of which pre-training", "seconds", ""),
    ("bytes_up", "upload", "upload, a client", "bytes", "lower"),
    ("bytes_down", "download", "download, a client", "bytes", "lower"),
    ("transmission_seconds_up", "upload_on_the_wire", "upload on the wire", "seconds", "lower"),
)


def cost_tables(results: Results) -> list[Table]:
    """Return what clients and server paid, a table a phase."""
    cells = results.benchmark.cells
    rates = sorted({float(cell.config.get("bandwidth-mbps", 100)) for cell in cells})
    at = " or ".join(f"{rate:g}" for rate in rates)
    notes = (
        "A client's own cost, the mean of those who ask to forget and of all others.",
        "Computing is measured and depends on the machine; it contains pre-training where there "
        "is any. Bytes are counted where they cross.",
        f"Seconds on the wire are computed from the bytes on the way up, at {at} Mbps.",
    )
    tables = []
    for task, called in results.phases.items():
        measured = [
            Measured(Column(f"{slug}_{who}", who, group, unit, better), task, f"{who}/{cost}")
            for cost, slug, group, unit, better in _COSTS
            for who in ("requesting", "other")
        ]
        column = Column("server_seconds", "training", "server", "seconds", "lower")
        measured.append(Measured(column, task, "server/train_seconds"))
        tables.append(results.tabulate(f"cost-{stem(task)}", f"Cost of {called}", measured, notes))
    return tables
