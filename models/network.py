"""A network as a row of named layers, and the cut that parts it between client and server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from split_unlearning.foundations.errors import UserError

Part = Literal["client", "server", "trunk", "head"]
"""A stretch of a network.

Behind the cut of the `client` segment lies the `server` segment. U-shaped split learning cuts that
once more, into the server's `trunk` and the client's `head`."""


@dataclass(frozen=True)
class Network:
    """A network that can be cut.

    Data passes the `layers` in their order. `cut` names the last layer that a client holds, `head`
    the first layer of the client's head in a U shape, by default the last.
    """

    layers: OrderedDict[str, nn.Module]
    cut: str
    head: str = ""

    def whole(self) -> nn.Sequential:
        """Return the network without a cut."""
        return self._stretch(list(self.layers))

    def segment(self, part: Part) -> nn.Sequential:
        """Return one stretch of the network; it shares the layers' parameters.

        Raises
        ------
        UserError
            If no layer has the name of the cut or of the head, or if the stretch would be empty.
        """
        names = list(self.layers)
        cut = len(self.client_layers())
        if part == "client":
            return self._stretch(names[:cut])
        if part == "server":
            return self._stretch(names[cut:])
        head = self._position("head", self.head or names[-1], names[cut + 1 :]) + cut + 1
        return self._stretch(names[cut:head] if part == "trunk" else names[head:])

    def client_layers(self) -> list[str]:
        """Return the names of the layers up to the cut."""
        names = list(self.layers)
        return names[: self._position("cut", self.cut, names[:-1]) + 1]

    def _position(self, key: str, name: str, allowed: Sequence[str]) -> int:
        if name not in allowed:
            possible = ", ".join(allowed) or "none, there are too few layers"
            raise UserError(f"{key}={name!r} is not possible; allowed: {possible}")
        return allowed.index(name)

    def _stretch(self, names: Sequence[str]) -> nn.Sequential:
        # A layer's name may have dots, a module's may not.
        return nn.Sequential(
            OrderedDict((name.replace(".", "-"), self.layers[name]) for name in names)
        )


Architecture = Callable[..., Network]
"""Builds a network from the shape of a sample and the number of labels.

An architecture that can begin with published weights also takes the keywords `pretrained` (a folder
with the weights, or their name on the Hugging Face hub) and `download` (whether the hub may be
asked)."""
