"""An audit: what the model makes of every sample of every client, handed to the run."""

from __future__ import annotations

from dataclasses import replace

from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.script import Question, Script
from split_unlearning.transport.message import Message


def audit(strategy: SplitStrategy) -> Script:
    """Ask clients for the outputs of Concat(F^k, F^s) on all samples that they ever held.

    Forgotten ones are among them. It comes after the scoring and reuses the test activations of
    that; the training samples travel the same way, and again only where a segment changed. The
    answers are the strategy's `audited`. Labels and outputs leave the clients: this is for
    measuring in a simulation.
    """
    strategy.audited = {}
    scored = yield from strategy.refresh("test", strategy.present)
    uploaded = yield from strategy.refresh("audit", scored)
    question = Question(
        {
            client: Message(
                "audit",
                tensors={
                    f"{split}/{name}": tensor
                    for split in ("test", "audit")
                    for name, tensor in strategy.outputs_for(client, split).items()
                },
            )
            for client in uploaded
        }
    )
    replies = yield replace(question, optional=strategy.skips_absent)
    strategy.audited = {reply.client: reply.message for reply in replies}
