"""The progress of runs on the screen: the app's own lines, picked out of what Flower prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from split_unlearning.simulations.console import FAILURE, PROGRESS

if TYPE_CHECKING:
    from split_unlearning.simulations.benchmark.runner import Progress

# What takes long to import is imported where it is needed.


@contextmanager
def shown(verbose: bool) -> Iterator[Callable[[str], None]]:
    """Show how far the run is; yield what takes the lines that it prints."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console()

    def print_news(line: str) -> None:
        if text := news(line):
            typer.echo(text)

    if verbose:
        yield typer.echo
    elif not console.is_terminal:
        typer.echo("starting")
        yield print_news
    else:
        text_column = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1))
        columns = (SpinnerColumn(), TimeElapsedColumn(), text_column)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda line: bar.update(task, description=news(line) or None)


@contextmanager
def shown_grid(
    total: int, verbose: bool
) -> Iterator[tuple[Callable[[str], None], Callable[[Progress], None]]]:
    """Show how far a grid is; yield what takes Flower's lines, and what takes the progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console()

    def say(progress: Progress) -> None:
        is_last = progress.ended == total
        left = "the last one" if is_last else f"about {_span(progress.seconds_left)} left"
        line = f"{progress.ended}/{total} {progress.text}; {left}"
        console.print(line, highlight=False, markup=False)

    if verbose or not console.is_terminal:
        yield (typer.echo if verbose else lambda _: None), say
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting Flower and Ray", total=total)

        def advance(progress: Progress) -> None:
            bar.update(task, completed=progress.ended)
            say(progress)

        yield lambda line: bar.update(task, description=news(line) or None), advance


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def news(line: str) -> str:
    """Return what a line says of the run, if the app printed it to say that."""
    is_news = line.startswith(PROGRESS) and not line.startswith(FAILURE)
    return line.removeprefix(PROGRESS) if is_news else ""
