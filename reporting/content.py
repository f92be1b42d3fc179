"""What a report says: its sections, each with tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.figures.by_epoch import accuracy_by_epoch
from split_unlearning.reporting.figures.by_setting import by_settings
from split_unlearning.reporting.figures.clustering import clustering_accuracy
from split_unlearning.reporting.figures.figure import Figure
from split_unlearning.reporting.figures.forgetting_cost import forgetting_against_cost
from split_unlearning.reporting.figures.label_distribution import label_distribution
from split_unlearning.reporting.figures.roc import membership_roc
from split_unlearning.reporting.groups import Group, make_groups
from split_unlearning.reporting.published.claims import Claim, check_claims, claims_table
from split_unlearning.reporting.published.comparison import comparison_tables
from split_unlearning.reporting.table import Table
from split_unlearning.reporting.tables.distance import distance_tables
from split_unlearning.reporting.tables.failures import failures_table
from split_unlearning.reporting.tables.label_matching import label_matching_tables
from split_unlearning.reporting.tables.membership import membership_tables
from split_unlearning.reporting.tables.methods import accuracy_table, cost_tables


@dataclass(frozen=True)
class Section:
    """A part of the report: tables first, then figures."""

    slug: str
    title: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to show."""
        return not self.tables and not self.figures


@dataclass(frozen=True)
class Content:
    """All of a report."""

    benchmark: Benchmark
    groups: tuple[Group, ...]
    claims: tuple[Claim, ...]
    sections: tuple[Section, ...]

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len({cell.seed for cell in self.benchmark.cells})


def make_content(benchmark: Benchmark) -> Content:
    """Work out what there is to say of a benchmark."""
    groups = make_groups(benchmark.cells, benchmark.axes)
    claims = tuple(check_claims(groups))
    published = (claims_table(claims), *comparison_tables(benchmark, groups))
    sections = (
        _section(
            "methods",
            "How well, and at what cost",
            [accuracy_table(groups), *cost_tables(groups)],
            [forgetting_against_cost(benchmark, groups), accuracy_by_epoch(groups)],
        ),
        _section("settings", "By setting", [], by_settings(groups)),
        _section(
            "membership",
            "Does membership still show?",
            membership_tables(groups),
            [membership_roc(groups)],
        ),
        _section(
            "distance", "Distance to the retrained model", distance_tables(benchmark, groups), []
        ),
        _section(
            "labels",
            "What the server can tell of masked labels",
            label_matching_tables(groups),
            [clustering_accuracy(groups)],
        ),
        _section("paper", "Beside the SplitWiper paper", published, []),
        _section("data", "Data", [], [label_distribution(benchmark.cells)]),
        _section("failures", "Failures", [failures_table(benchmark)], []),
    )
    return Content(
        benchmark, groups, claims, tuple(section for section in sections if not section.is_empty)
    )


def _section(
    slug: str, title: str, tables: Sequence[Table], figures: Sequence[Figure | None]
) -> Section:
    return Section(
        slug,
        title,
        tuple(table.shown() for table in tables if table.rows),
        tuple(figure for figure in figures if figure is not None),
    )
