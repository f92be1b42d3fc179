"""U-shaped split learning: labels stay home."""

from __future__ import annotations

from split_unlearning.strategies.server.scoring import Scored, Scoring
from split_unlearning.strategies.vanilla import PROTECTIONS, Vanilla
from split_unlearning.transport.floats import pack_arrays
from split_unlearning.transport.message import Array


class UShaped(Vanilla):
    """Clients hold both ends of the network; the server sees neither images nor labels.

    Turns, hand-off and forgetting are vanilla's. A step takes two exchanges: smashed data up and
    features down, the features' gradient up and the gradient at the cut down.
    """

    client = "split_unlearning.clients.ushaped:UShapedClient"
    server_part = "trunk"
    # No label crosses that could be told otherwise, or be read off a gradient.
    ignores = PROTECTIONS

    def predictions_for(self, client: int) -> dict[str, Array]:
        """Return the features that leave the trunk; the client's head makes labels of them."""
        return self._packed(self.server.call(Scoring.outputs, client))

    def outputs_for(self, client: int, split: Scored) -> dict[str, Array]:
        """Return the features that leave the trunk, as `predictions_for`."""
        return self._packed(self.server.call(Scoring.outputs, client, split))

    def _packed(self, features: Array) -> dict[str, Array]:
        return pack_arrays({"features": features}, self.training.codec)
