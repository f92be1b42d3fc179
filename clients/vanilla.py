"""The client of vanilla split learning."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import nn

from clients.base import SplitClient, action
from models.training import device
from transport.grpc_link import connect
from transport.link import Endpoint, Link
from transport.message import Array, Message, Scalar
from unlearning.exactness import Ids, batches, derive_seed, digest, order


class VanillaClient(SplitClient):
    """Trains its segment on the gradients that come back over the link."""

    @action
    def start(self, message: Message) -> Message:
        """Begin with a fresh segment and a fresh optimiser."""
        segment = self.fresh_segment(shared=bool(message.fields["shared"]))
        self.state.forget("momentum")
        return Message("start", {"digest": self.keep_segment(segment)})

    @action
    def leave_out(self, message: Message) -> Message:
        """Remove the forgotten samples."""
        self.forget_samples(message)
        return Message("leave-out")

    @action
    def train(self, message: Message) -> Message:
        """Take one turn: an epoch over the client's own data, every batch over the link."""
        self._take_over(message)
        segment = self.kept_segment()
        optimiser = self.training.optimiser(segment)
        _load_momentum(optimiser, segment, self.state.load("momentum"))
        visited = order(
            self.holding.ids,
            derive_seed(self.training.seed, "order", self.client, message.integer("epoch")),
        )
        started = time.perf_counter()
        with connect(Endpoint.from_fields(message.fields), self.client, self.phase) as link:
            for rows in self.batches(visited):
                x, y = self.holding.x[rows].to(device()), self.holding.y[rows].to(device())
                self.step(segment, optimiser, link, x, y)
            self.waited = link.seconds_waiting
        batch_seconds = time.perf_counter() - started
        momentum = _momentum(optimiser, segment)
        self.state.save("momentum", momentum)
        fields: dict[str, Scalar] = {
            "digest": self.keep_segment(segment),
            "batches": len(self.batches(visited)),
            "batch-seconds": batch_seconds,
            "samples": len(self.holding.ids),
        }
        # A segment that stays with its client never leaves it.
        held = {"segment": segment.state_dict(), "momentum": momentum}
        handed_on = _carried({part: held[part] for part in str(message.fields["hand-on"]).split()})
        return Message("train", fields, handed_on)

    def step(
        self,
        segment: nn.Module,
        optimiser: torch.optim.Optimizer,
        link: Link,
        x: torch.Tensor,
        y: torch.Tensor,
    ) -> None:
        """Take one step: smashed data and labels up, the gradient at the cut down."""
        smashed = segment(x)
        reply, _ = link.exchange({"smashed": smashed.detach().cpu(), "labels": y.cpu()})
        optimiser.zero_grad(set_to_none=True)
        smashed.backward(reply["gradient"].to(smashed.device))
        optimiser.step()

    def batches(self, visited: Ids) -> list[torch.Tensor]:
        """Return the positions of each batch's samples, in the order in which they are visited."""
        rows = torch.from_numpy(visited)
        return [rows[batch] for batch in batches(len(rows), self.training.batch_size)]

    @action
    def take(self, message: Message) -> Message:
        """Take over the segment that another client handed on."""
        self._take_over(message)
        return Message("take", {"digest": digest(self.kept_segment().state_dict())})

    def _take_over(self, message: Message) -> None:
        """Keep what the message carries, if it carries a segment."""
        weights = _part(message.tensors, "segment")
        if weights:
            self.state.save("segment", weights)
            self.state.save("momentum", _part(message.tensors, "momentum"))


def _momentum(optimiser: torch.optim.Optimizer, segment: nn.Module) -> dict[str, torch.Tensor]:
    """Return the momentum of each parameter by its name; empty without momentum."""
    kept = {
        name: optimiser.state[parameter].get("momentum_buffer")
        for name, parameter in segment.named_parameters()
        if parameter in optimiser.state
    }
    return {name: buffer for name, buffer in kept.items() if buffer is not None}


def _load_momentum(
    optimiser: torch.optim.Optimizer,
    segment: nn.Module,
    momentum: dict[str, torch.Tensor] | None,
) -> None:
    for name, parameter in segment.named_parameters():
        if momentum and name in momentum:
            optimiser.state[parameter]["momentum_buffer"] = momentum[name].to(parameter.device)


def _carried(parts: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Array]:
    """Return a segment, or it and its optimiser's state, as the tensors of one message."""
    return {
        f"{part}/{name}": tensor.detach().cpu().numpy()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def _part(tensors: dict[str, Array], part: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one part of what `_carried` packed."""
    return {
        name.removeprefix(f"{part}/"): torch.from_numpy(array.copy())
        for name, array in tensors.items()
        if name.startswith(f"{part}/")
    }
