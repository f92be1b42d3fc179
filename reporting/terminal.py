"""A run's result as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from split_unlearning.reporting.result import ClientCost, Phase, Result

_WIDTH = 110


def render(result: Result) -> str:
    """Return the tables of a result: plain text, at most 110 columns wide."""
    config = result.config
    heading = (
        f"{result.strategy}, {result.unlearning}, on {config['dataset']} "
        f"({config['distribution']}, {result.clients} clients, seed {config['seed']})"
    )
    sink = StringIO()
    # What a user wrote is printed as it is: neither markup nor emoji, whatever the terminal.
    console = Console(
        file=sink,
        width=_WIDTH,
        color_system=None,
        force_terminal=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(heading)
    console.print(_accuracy_table(result.phases))
    if hint := _labels_held(result):
        console.print(hint)
    console.print(_cost_table(result.phases, config["bandwidth-mbps"]))
    lines = [line for phase in result.phases for line in phase.approximations]
    if lines:
        console.print("Approximate or incomplete")
        for line in dict.fromkeys(lines):
            console.print(f"- {line}")
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines())


def _accuracy_table(phases: Sequence[Phase]) -> Table:
    table = _table("Accuracy: each client on its own test samples, through its own segment")
    for column in ("forgotten", "retained", "server trained", "server cache"):
        table.add_column(column, justify="right")
    for phase in phases:
        table.add_row(
            _name(phase),
            _percent(phase.accuracy.unlearned),
            _percent(phase.accuracy.retained),
            f"{phase.server.train_seconds:.2f} s",
            _size(phase.server.cache_bytes),
        )
    return table


def _labels_held(result: Result) -> str:
    """Say what accuracy does not show where clients do not hold every label."""
    if result.distribution is None:
        return ""
    held = sorted(sum(count > 0 for count in row) for row in result.distribution.train)
    labels = len(result.distribution.labels)
    if not held or held[0] == labels:
        return ""
    some = f"{held[0]}" if held[0] == held[-1] else f"{held[0]} to {held[-1]}"
    return (
        f"Each client holds {some} of {labels} labels, and is tested on these alone; telling all "
        f"{labels} apart is harder.\n"
    )


def _cost_table(phases: Sequence[Phase], bandwidth: object) -> Table:
    table = _table(f"Cost a client (mean); on the wire at {bandwidth:g} Mbps, both ways")
    for column in ("clients", "trained", "up", "down", "messages", "on the wire"):
        table.add_column(column, justify="right")
    for phase in phases:
        name = _name(phase)
        for group, requested in (("requesting", True), ("other", False)):
            members = [client for client in phase.clients if client.requested is requested]
            if members:
                table.add_row(name, f"{len(members)} {group}", *_means(members))
                name = ""
    return table


def _means(clients: Sequence[ClientCost]) -> list[str]:
    return [
        f"{fmean(client.train_seconds for client in clients):.3f} s",
        _size(fmean(client.bytes_up for client in clients)),
        _size(fmean(client.bytes_down for client in clients)),
        f"{fmean(client.messages for client in clients):.1f}".removesuffix(".0"),
        f"{fmean(client.transmission_seconds for client in clients):.4f} s",
    ]


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="")
    table.add_column("phase")
    return table


def _name(phase: Phase) -> str:
    return f"forget {phase.request}" if phase.request else phase.phase


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _size(size: float) -> str:
    """Word a size in bytes, with the prefixes of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:,.4g} TB"
