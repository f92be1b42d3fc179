"""``split-unlearning list``."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from split_unlearning.simulations.command_line.catalogue import describe, described, matrix, table
from split_unlearning.simulations.command_line.ending import one_line_errors


def list_names() -> None:
    """List what a run config can name, and its keys."""
    with one_line_errors():
        from split_unlearning.models.split import MODELS, TORCHVISION
        from split_unlearning.simulations.benchmark.spec import titles
        from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
        from split_unlearning.simulations.data.loaders.registry import DATASETS
        from split_unlearning.simulations.data.loading import JOINED
        from split_unlearning.simulations.keys import by_owner, general
        from split_unlearning.strategies.registry import STRATEGIES
        from split_unlearning.unlearning.methods import METHODS

        data_sets = {name: DATASETS.get(name).description for name in DATASETS.names()}
        _print_table("Strategies (strategy)", describe(STRATEGIES))
        _print_table("Unlearning methods (unlearning)", describe(METHODS))
        _print_table("Which strategy can forget how", matrix(STRATEGIES, METHODS))
        _print_table("Data sets (dataset)", data_sets | JOINED)
        _print_table("Distributions (distribution)", describe(DISTRIBUTIONS))
        any_other = "Any classification model of torchvision; cut names a layer."
        _print_table("Benchmarks (benchmark NAME)", titles())
        _print_table("Models (model)", describe(MODELS) | {f"{TORCHVISION}NAME": any_other})
        _print_table("Run-config keys (--set KEY=VALUE)", described(general()))
        for owner, options in by_owner().items():
            _print_table(f"Settings of {owner}", described(options))


def _print_table(title: str, lines: Mapping[str, str]) -> None:
    typer.echo(table(title, lines) + "\n")
