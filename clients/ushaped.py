"""The client of U-shaped split learning."""

from __future__ import annotations

import torch
from torch import nn

from clients.vanilla import VanillaClient
from models.training import device, finite_loss
from transport.link import Link
from transport.message import Array, Message


class UShapedClient(VanillaClient):
    """Holds both ends of the network, and its labels."""

    def fresh_segment(self, *, shared: bool = False) -> nn.ModuleDict:
        """Return a freshly initialised bottom and head."""
        ends = {
            "bottom": self.fresh_part("client", shared=shared),
            "head": self.fresh_part("head", shared=shared),
        }
        return nn.ModuleDict(ends).to(device())

    def kept_segment(self) -> nn.ModuleDict:
        """Return the bottom and the head as this client last kept them."""
        weights = self.kept_weights()

        def of(end: str) -> dict[str, torch.Tensor]:
            prefix = f"{end}."
            return {
                name.removeprefix(prefix): weights[name]
                for name in weights
                if name.startswith(prefix)
            }

        ends = {
            "bottom": self.part_with("client", of("bottom")),
            "head": self.part_with("head", of("head")),
        }
        return nn.ModuleDict(ends).to(device())

    def bottom(self, segment: nn.Module) -> nn.Module:
        """Return the end that images enter."""
        assert isinstance(segment, nn.ModuleDict)
        return segment["bottom"]

    def step(
        self,
        segment: nn.Module,
        optimiser: torch.optim.Optimizer,
        link: Link,
        x: torch.Tensor,
        y: torch.Tensor,
    ) -> None:
        """Take one step in two exchanges; the labels `y` meet the loss here and go nowhere."""
        assert isinstance(segment, nn.ModuleDict)
        smashed = segment["bottom"](x)
        reply, _ = link.exchange({"smashed": smashed.detach().cpu()})
        features = reply["features"].to(smashed.device).requires_grad_()
        optimiser.zero_grad(set_to_none=True)
        finite_loss(segment["head"](features), y).backward()
        assert features.grad is not None
        reply, _ = link.exchange({"feature-gradient": features.grad.cpu()})
        smashed.backward(reply["gradient"].to(smashed.device))
        optimiser.step()

    def predicted(self, message: Message) -> Array:
        """Return the label that the head makes of the features of each test sample."""
        head = self.kept_segment()["head"]
        features = torch.tensor(message.tensors["features"]).to(device())
        with torch.no_grad():
            predictions: Array = head(features).argmax(dim=1).cpu().numpy()
        return predictions
