"""How a run of Python's door is carried out, and how its end is told."""

from __future__ import annotations

from collections.abc import Mapping

from split_unlearning.foundations.errors import RunFailedError, UserError
from split_unlearning.foundations.options import Value
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.launching.launch import Engine
from split_unlearning.simulations.python.progress import shown


def carry_out(
    engine: Engine, settings: RunConfig | Mapping[str, Value], clients: int, progress: bool
) -> None:
    """Do what a run config asks for, and show how far it is if `progress` is true.

    Raises
    ------
    UserError
        What the run refused, where it took place in this process.
    RunFailedError
        If the run failed for another reason, or in another process.
    """
    named = settings.as_mapping() if isinstance(settings, RunConfig) else settings
    with shown(progress) as on_line:
        outcome = engine(named, clients, on_line=on_line)
    if outcome.succeeded:
        return
    if isinstance(outcome.raised, UserError):
        raise outcome.raised
    raise RunFailedError(outcome.error, outcome.log) from outcome.raised
