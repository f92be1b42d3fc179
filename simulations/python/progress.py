"""How far a run is, in a terminal or a notebook; elsewhere nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from split_unlearning.simulations.command_line.progress import news


@contextmanager
def shown(wanted: bool) -> Iterator[Callable[[str], None]]:
    """Show a line with the time and the run's last news; yield what takes the run's lines."""
    console = Console()
    # Rich draws in a notebook with ipywidgets, and warns where it is not installed.
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    if not wanted or not (console.is_terminal or in_notebook):
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda line: bar.update(task, description=news(line) or None)
