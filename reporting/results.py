"""All measures of a benchmark as a long pandas DataFrame, and their means over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Cell, Phase
from split_unlearning.reporting.groups import Group, axis_columns, make_groups
from split_unlearning.reporting.table import Column, Table, make_table
from split_unlearning.reporting.values import Summary, Value


@dataclass(frozen=True)
class Measured:
    """A column of numbers, and where they come from: a measure of one phase."""

    column: Column
    task: int
    measure: str


@dataclass(frozen=True)
class Results:
    """A benchmark with its rows: cells that differ in their seed alone."""

    benchmark: Benchmark
    groups: tuple[Group, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One line a cell, phase and measure: row, cell, seed, task, measure and value.

        Beside what a phase measured itself stand its differences to the model that was retrained
        without what was forgotten: ``gap/unlearned`` and ``gap/retained`` (accuracies), their sizes
        (``distance/unlearned``, ...), and ``membership_gap/hit_rate`` and ``membership_gap/auc``.
        """
        lines = [
            (group.number, cell.id, cell.seed, phase.task, name, value)
            for group in self.groups
            for cell in group.cells
            for phase in cell.phases
            for name, value in (*phase.measures.items(), *self._gaps(cell, phase))
        ]
        return pd.DataFrame(lines, columns=["row", "cell", "seed", "task", "measure", "value"])

    @cached_property
    def _summaries(self) -> dict[Any, Summary]:
        values = self.frame.groupby(["row", "task", "measure"])["value"]
        found = values.agg(["mean", "std", "count"])
        return {
            where: Summary(mean, None if pd.isna(std) else std, count)
            for where, mean, std, count in found.itertuples()
        }

    def of(self, group: Group, task: int, measure: str) -> Summary | None:
        """Return mean and spread over a row's seeds, None if none of them measured it."""
        return self._summaries.get((group.number, task, measure))

    @cached_property
    def phases(self) -> dict[int, str]:
        """What each phase is called, by its task: learning, then each request.

        A request that all cells share is named; of others, the number is.
        """
        requests: dict[int, set[str]] = {}
        for cell in self.benchmark.cells:
            for phase in cell.phases:
                requests.setdefault(phase.task, set()).add(phase.request)
        forgotten = sum(task > 0 for task in requests)
        return {task: _called(task, found, forgotten) for task, found in sorted(requests.items())}

    def names(self, start: str) -> list[str]:
        """Return the rest of all measures' names that begin so, as they first appear."""
        found = self.frame["measure"].drop_duplicates()
        return [name.removeprefix(start) for name in found if name.startswith(start)]

    def tabulate(
        self,
        slug: str,
        title: str,
        measured: Sequence[Measured],
        notes: Sequence[str] = (),
        only_measured: bool = False,
    ) -> Table:
        """Return a table with a line a row; rows without any of the measures can be left out."""
        lines: list[tuple[Value, ...]] = []
        for group in self.groups:
            values = [self.of(group, one.task, one.measure) for one in measured]
            if not only_measured or any(value is not None for value in values):
                seeds = Summary(float(len({cell.seed for cell in group.cells})))
                lines.append((*group.labels(), seeds, *values))
        columns = [
            *axis_columns(self.groups[0]),
            Column("seeds", "seeds", unit="count", fixed=True),
            *(one.column for one in measured),
        ]
        return make_table(slug, title, columns, lines, notes)

    def _gaps(self, cell: Cell, phase: Phase) -> Iterator[tuple[str, float]]:
        ours = phase.measures
        reference = self.benchmark.reference(cell)
        aim = reference.phase(phase.task) if reference else None
        for name in ("unlearned", "retained"):
            measure = f"accuracy/{name}"
            if aim and measure in ours and measure in aim.measures:
                gap = ours[measure] - aim.measures[measure]
                yield from ((f"gap/{name}", gap), (f"distance/{name}", abs(gap)))
        for rate in ("hit_rate", "auc"):
            after = ours.get(f"membership/{rate}")
            retrained = ours.get(f"membership_reference/{rate}")
            if after is not None and retrained is not None:
                yield f"membership_gap/{rate}", after - retrained


def read_results(benchmark: Benchmark) -> Results:
    """Put the cells of a benchmark into rows."""
    return Results(benchmark, make_groups(benchmark.cells, benchmark.axes))


def stem(task: int) -> str:
    """Return what stands for a phase in the names of files and columns."""
    return f"request-{task}" if task else "learn"


def _called(task: int, requests: set[str], forgotten: int) -> str:
    if task == 0:
        return "learning"
    if len(requests) == 1:
        return f"forgetting {next(iter(requests))}"
    return "forgetting" if forgotten == 1 else f"forgetting, request {task}"
