"""What is shown while runs go on: the app's own lines, picked out of what Flower prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

from split_unlearning.simulations.console import FAILURE, PROGRESS

# What takes long to import is imported where it is needed.


@contextmanager
def shown(verbose: bool) -> Iterator[Callable[[str], None]]:
    """Show how far the run is; yield what takes the lines that it prints."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console()

    def print_news(line: str) -> None:
        if text := _news(line):
            typer.echo(text)

    if verbose:
        yield typer.echo
    elif not console.is_terminal:
        typer.echo("starting Flower and Ray")
        yield print_news
    else:
        text_column = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1))
        columns = (SpinnerColumn(), TimeElapsedColumn(), text_column)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting Flower and Ray", total=None)
            yield lambda line: bar.update(task, description=_news(line) or None)


class Told(Protocol):
    """How far a grid of runs is."""

    @property
    def ended(self) -> int:
        """Runs that have ended."""

    @property
    def text(self) -> str:
        """What ended last, and how."""

    @property
    def seconds_left(self) -> float:
        """That the others will take."""


@contextmanager
def shown_grid(
    total: int, verbose: bool
) -> Iterator[tuple[Callable[[str], None], Callable[[Told], None]]]:
    """Show how far a grid of runs is; yield what takes Flower's lines, and what is told of ends."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console()

    def say(told: Told) -> None:
        left = f"about {_span(told.seconds_left)} left" if told.ended < total else "the last one"
        console.print(f"{told.ended}/{total} {told.text}; {left}", highlight=False, markup=False)

    if verbose or not console.is_terminal:
        yield (typer.echo if verbose else lambda _: None), say
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting Flower and Ray", total=total)

        def advance(told: Told) -> None:
            bar.update(task, completed=told.ended)
            say(told)

        yield lambda line: bar.update(task, description=_news(line) or None), advance


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _news(line: str) -> str:
    """Return what a line says of the run, if the app printed it to say that."""
    is_news = line.startswith(PROGRESS) and not line.startswith(FAILURE)
    return line.removeprefix(PROGRESS) if is_news else ""
