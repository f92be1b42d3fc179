"""The client of U-shaped split learning."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from split_unlearning.clients.vanilla import VanillaClient
from split_unlearning.models.devices import device, moved
from split_unlearning.models.training import finite
from split_unlearning.transport.floats import unpack_arrays
from split_unlearning.transport.link import Link
from split_unlearning.transport.message import Array, Message
from split_unlearning.unlearning.objectives import Objective


class UShapedClient(VanillaClient):
    """Holds both ends of the network, and its labels."""

    def fresh_segment(self, owner: int | str | None = None) -> nn.ModuleDict:
        """Return a freshly initialised bottom and head."""
        ends = {
            "bottom": self.fresh_part("client", owner),
            "head": self.fresh_part("head", owner),
        }
        return nn.ModuleDict(ends).to(device())

    def segment_of(self, weights: Mapping[str, torch.Tensor]) -> nn.ModuleDict:
        """Return a bottom and a head with these weights."""

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
        """Return the end that turns samples into smashed data."""
        assert isinstance(segment, nn.ModuleDict)
        return segment["bottom"]

    def step(
        self,
        segment: nn.Module,
        optimiser: torch.optim.Optimizer,
        link: Link,
        x: torch.Tensor,
        objective: Objective,
        targets: Mapping[str, torch.Tensor],
    ) -> None:
        """Take one step in two exchanges; the targets stay here, where the loss is."""
        assert isinstance(segment, nn.ModuleDict)
        smashed = segment["bottom"](x)
        reply, _ = link.exchange({"smashed": smashed.detach().cpu()})
        features = moved(reply["features"], smashed.device).requires_grad_()
        optimiser.zero_grad(set_to_none=True)
        placed = {name: moved(target, features.device) for name, target in targets.items()}
        finite(objective.loss(segment["head"](features), placed)).backward()
        assert features.grad is not None
        reply, _ = link.exchange({"feature-gradient": features.grad.cpu()})
        smashed.backward(moved(reply["gradient"], smashed.device))
        optimiser.step()

    def finish(self, segment: nn.Module, outputs: torch.Tensor) -> torch.Tensor:
        """Return the head's logits for the features that leave the trunk."""
        assert isinstance(segment, nn.ModuleDict)
        logits: torch.Tensor = segment["head"](outputs)
        return logits

    def joined(self, server: nn.Module) -> nn.Module:
        """Return the whole of bottom, trunk and head, as `SplitClient.joined`."""
        segment = self.kept_segment()
        assert isinstance(segment, nn.ModuleDict)
        ends = OrderedDict(client=segment["bottom"], server=server, head=segment["head"])
        return nn.Sequential(ends)

    def predicted(self, message: Message) -> Array:
        """Return the head's label for the features of each test sample."""
        predictions: Array = self._logits(message.tensors).argmax(dim=1).cpu().numpy()
        return predictions

    def probabilities(self, outputs: Mapping[str, Array]) -> Array:
        """Return the head's probability of each label, from the features of each sample."""
        probabilities: Array = torch.softmax(self._logits(outputs), dim=1).cpu().numpy()
        return probabilities

    def _logits(self, outputs: Mapping[str, Array]) -> torch.Tensor:
        features = moved(torch.tensor(unpack_arrays(outputs)["features"]), device())
        with torch.no_grad():
            return self.finish(self.kept_segment(), features)
