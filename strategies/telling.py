"""What clients keep of the model, told to the run where that is asked for."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.script import Question, Reply
from split_unlearning.transport.message import Message


def tell_models(strategy: SplitStrategy) -> Generator[Question, list[Reply], dict[int, Message]]:
    """Ask each client that is present for its side of the model; return the answers, by client.

    Segments leave the clients: this is for looking at models after a simulation. It changes
    nothing, and counts neither as training nor as evaluation.
    """
    phase, strategy.phase = strategy.phase, "models"
    question = strategy.ask(strategy.present, "tell-model")
    replies = yield replace(question, optional=strategy.skips_absent)
    strategy.phase = phase
    return {reply.client: reply.message for reply in replies}
