"""SplitWiper+: SplitWiper with labels that the server cannot read (Algorithms 3 and 4)."""

from __future__ import annotations

from strategies.label_consensus import agree_on_labels
from strategies.script import Script
from strategies.splitwiper import SplitWiper
from transport.message import Array


class SplitWiperPlus(SplitWiper):
    """SplitWiper under masked labels, on smashed data with noise.

    Clients agree on all labels in envelopes that the server relays and cannot open, and each turns
    a label into several masked ones, by a map that follows from what they agreed on and never
    crosses the wire (label expansion). What they upload bears masked labels, pseudonyms for ids,
    and noise (masking). Learning and forgetting are SplitWiper's; the map outlives requests.
    """

    client = "clients.splitwiper_plus:SplitWiperPlusClient"
    uses = SplitWiper.uses | {
        "expansion",
        "copies",
        "mechanism",
        "epsilon",
        "delta",
        "clip",
        "privacy-unit",
        "secrets",
        "consensus-add",
        "consensus-finish",
        "consensus-most",
        "consensus-rounds",
        "attacks",
    }
    counts_by_label = False

    def learn(self) -> Script:
        """Agree on labels (Algorithm 3), then as SplitWiper (Algorithm 1, under Algorithm 4)."""
        masked_labels = yield from agree_on_labels(self.clients, self.setting.consensus_rounds)
        self.server.expect_labels(masked_labels)
        yield from super().learn()

    def predictions_for(self, client: int) -> dict[str, Array]:
        """Return how probable each masked label is for each test sample."""
        return {"probabilities": self.server.probabilities(client)}
