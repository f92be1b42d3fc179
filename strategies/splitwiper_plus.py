"""SplitWiper+: SplitWiper with labels that the server cannot read (Algorithms 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from split_unlearning.foundations.options import flag, positive
from split_unlearning.strategies.label_consensus import agree_on_labels
from split_unlearning.strategies.script import Script
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.scoring import Scored, Scoring
from split_unlearning.strategies.splitwiper import SplitWiper
from split_unlearning.transport.message import Array


class SplitWiperPlus(SplitWiper):
    """SplitWiper under masked labels, on smashed data with noise.

    Clients agree on all labels in envelopes that the server relays and cannot open, and each turns
    a label into several masked ones, by a map that follows from what they agreed on and never
    crosses the wire (label expansion). What they upload bears masked labels, pseudonyms for ids,
    and noise (masking). Learning and forgetting are SplitWiper's; the map outlives requests.
    """

    client = "split_unlearning.clients.splitwiper_plus:SplitWiperPlusClient"
    own_options: ClassVar = {
        "consensus-rounds": positive(100, "how often the pool goes round at most"),
        # Its clients read it too.
        "attacks": flag(
            "measure what the server can tell of masked labels; a client reveals them for that"
        ),
    }
    counts_by_label = False

    def learn(self) -> Script:
        """Agree on labels (Algorithm 3), then as SplitWiper (Algorithm 1, under Algorithm 4)."""
        rounds = self.options.integer("consensus-rounds")
        masked_labels = yield from agree_on_labels(self.clients, rounds)
        self.server.call(ServerModel.expect_labels, masked_labels)
        yield from super().learn()

    def score(self, present: Sequence[int] | None = None) -> Script:
        """Measure accuracy; with `attacks`, ask a client what masked labels mean as well."""
        yield from super().score(present)
        if self.options["attacks"]:
            someone = (self.present if present is None else present)[:1]
            for reply in (yield self.ask(someone, "reveal-map")):
                self.real_of = reply.message.tensors["real-of"].astype(np.int64)

    def predictions_for(self, client: int) -> dict[str, Array]:
        """Return how probable each masked label is for each test sample."""
        return {"probabilities": self.server.call(Scoring.probabilities, client)}

    def outputs_for(self, client: int, split: Scored) -> dict[str, Array]:
        """Return how probable each masked label is, as `predictions_for`."""
        return {"probabilities": self.server.call(Scoring.probabilities, client, split)}
