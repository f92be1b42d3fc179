"""The sections of a report, each with tables and figures."""

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
from split_unlearning.reporting.published.claims import Claim, check_claims, claims_table
from split_unlearning.reporting.published.comparison import comparison_tables
from split_unlearning.reporting.results import Results, read_results
from split_unlearning.reporting.table import Table
from split_unlearning.reporting.tables.accuracy import accuracy_table
from split_unlearning.reporting.tables.cost import cost_tables
from split_unlearning.reporting.tables.distance import distance_tables
from split_unlearning.reporting.tables.failures import failures_table
from split_unlearning.reporting.tables.label_matching import label_matching_tables
from split_unlearning.reporting.tables.membership import membership_tables


@dataclass(frozen=True)
class Section:
    """A part of the report: tables first, then figures."""

    slug: str
    title: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Content:
    """All of a report."""

    results: Results
    claims: tuple[Claim, ...]
    sections: tuple[Section, ...]

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that it is about."""
        return self.results.benchmark


def make_content(benchmark: Benchmark) -> Content:
    """Work out what there is to say of a benchmark."""
    results = read_results(benchmark)
    claims = tuple(check_claims(results))
    sections = (
        _section(
            "methods",
            "How well, and at what cost",
            [accuracy_table(results), *cost_tables(results)],
            [forgetting_against_cost(results), accuracy_by_epoch(results)],
        ),
        _section("settings", "By setting", [], by_settings(results)),
        _section(
            "membership",
            "Does membership still show?",
            membership_tables(results),
            [membership_roc(results)],
        ),
        _section("distance", "Distance to the retrained model", distance_tables(results), []),
        _section(
            "labels",
            "What the server can tell of masked labels",
            label_matching_tables(results),
            [clustering_accuracy(results)],
        ),
        _section(
            "paper",
            "Beside the SplitWiper paper",
            [claims_table(claims), *comparison_tables(results)],
            [],
        ),
        _section("data", "Data", [], [label_distribution(benchmark.cells)]),
        _section("failures", "Failures", [failures_table(benchmark)], []),
    )
    told = tuple(section for section in sections if section.tables or section.figures)
    return Content(results, claims, told)


def _section(
    slug: str, title: str, tables: Sequence[Table], figures: Sequence[Figure | None]
) -> Section:
    return Section(
        slug,
        title,
        tuple(table for table in tables if len(table.frame)),
        tuple(figure for figure in figures if figure is not None),
    )
