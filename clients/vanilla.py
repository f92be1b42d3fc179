"""The client of vanilla split learning."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from split_unlearning.clients.acting import action
from split_unlearning.clients.alone import pretrain
from split_unlearning.clients.base import SplitClient
from split_unlearning.clients.holding import Holding
from split_unlearning.clients.label_privacy.guarantee import Guarantee
from split_unlearning.clients.label_privacy.randomised_response import (
    LABEL_MECHANISM,
    check_label_mechanism,
    draws,
    guarantee_of_randomised_labels,
    randomised_labels,
    response_with_prior,
    uniform_prior,
)
from split_unlearning.foundations.options import Options
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.devices import moved
from split_unlearning.transport.link import Link
from split_unlearning.transport.message import Array, Message, Scalar
from split_unlearning.unlearning.objectives import Batch, Objective, targets_of
from split_unlearning.unlearning.stages import Stage


class VanillaClient(SplitClient):
    """Trains its segment on the gradients that come back over the link.

    With ``label-mechanism = rr-with-prior`` it trains with randomised labels in every stage and on
    either side of the loss: what leaves the client in training then follows from images and
    randomised labels alone. Requests select, and scores count, by the true labels.
    """

    own_options = LABEL_MECHANISM

    @classmethod
    def check_options(cls, options: Options) -> None:
        """Refuse a label mechanism without its epsilon, and the other way round."""
        check_label_mechanism(options)

    @classmethod
    def guarantee(cls, options: Options, uploads: Mapping[int, int]) -> Guarantee | None:
        """Return what randomised response guarantees; noise on gradients guarantees nothing."""
        return guarantee_of_randomised_labels(options)

    def prepare(self, message: Message) -> None:
        """Drop the teacher of a stage that ended without this client: it had not forgotten."""
        if "stage" not in message.fields:
            self.state.forget("original")

    @action
    def start(self, message: Message) -> Message:
        """Begin with a fresh segment, or SplitWiper's pre-trained one, and a fresh optimiser."""
        if message.fields["pretrained"]:
            segment = self._pretrained()
        else:
            segment = self.fresh_segment("shared" if message.fields["shared"] else None)
        self.state.forget("momentum")
        self.keep_segment(segment)
        return Message("start")

    def _pretrained(self) -> nn.Module:
        """Return a segment that begins as SplitWiper's does, trained only if it is not kept."""
        segment = self.fresh_segment()
        bottom = self.bottom(segment)
        kept = self.state.load("pretrained")
        if kept is None:
            pretrain(self, bottom)
            self.state.save("pretrained", bottom.state_dict())
        else:
            bottom.load_state_dict(kept)
        return segment

    @action
    def leave_out(self, message: Message) -> Message:
        """Remove the forgotten samples, and the segment that was pre-trained with them."""
        self.state.forget("pretrained")
        return super().leave_out(message)

    @action
    def begin(self, message: Message) -> Message:
        """Begin a stage with a fresh optimiser; keep the original network as a teacher."""
        self.state.forget("momentum")
        if "original" in self.stage(message).objective.teachers:
            self.state.save("original", self.kept_weights())
        return Message("begin")

    def visit(
        self, stage: Stage, epoch: int, about: int, holding: Holding | None = None
    ) -> Iterator[tuple[torch.Tensor, Batch]]:
        """Yield the batches of one epoch of a stage, with randomised labels if so configured."""
        for x, batch in super().visit(stage, epoch, about, holding):
            yield x, replace(batch, labels=self._training_labels(batch))

    def _training_labels(self, batch: Batch) -> torch.Tensor:
        """Return the labels to train with: the same for a sample in all epochs and stages."""
        if self.options["label-mechanism"] == "none":
            return batch.labels
        # A prior from the client's own labels would reveal what is protected.
        prior = uniform_prior(batch.num_labels)
        response = response_with_prior(prior, self.options.number("label-epsilon"))
        seed = derive_seed(self.training.seed, "told-label", self.client)
        return randomised_labels(batch.labels, response, draws(batch.ids, seed))

    @action
    def train(self, message: Message) -> Message:
        """Take one turn: an epoch over the client's own samples, every batch over the link."""
        self._take_over(message)
        stage, epoch = self.stage(message), message.integer("epoch")
        segment = self.kept_segment()
        optimiser = self.optimiser_of(segment, message)
        _load_momentum(optimiser, segment, self.state.load("momentum"))
        teachers = self._teachers(stage)
        count, samples = 0, 0
        started = time.perf_counter()
        with self.connect(message) as link:
            for x, batch in self.visit(stage, epoch, message.integer("about")):
                logits_of = partial(self._logits_of, link, teachers, x)
                targets = targets_of(stage.objective, batch, logits_of)
                self.step(segment, optimiser, link, x, stage.objective, targets)
                count, samples = count + 1, samples + len(x)
            self.waited = link.seconds_waiting
        batch_seconds = time.perf_counter() - started
        momentum = _momentum(optimiser, segment)
        self.state.save("momentum", momentum)
        self.keep_segment(segment)
        if epoch == stage.epochs - 1:
            self.state.forget("original")
        fields: dict[str, Scalar] = {
            "batches": count,
            "batch-seconds": batch_seconds,
            "samples": samples,
        }
        # Only a segment that is handed on leaves its client.
        held = {"segment": segment.state_dict(), "momentum": momentum}
        handed_on = _carried({part: held[part] for part in str(message.fields["hand-on"]).split()})
        return Message("train", fields, handed_on)

    def optimiser_of(self, segment: nn.Module, message: Message) -> torch.optim.SGD:
        """Return the optimiser of one turn, without its momentum."""
        return self.training.optimiser(segment)

    def step(
        self,
        segment: nn.Module,
        optimiser: torch.optim.Optimizer,
        link: Link,
        x: torch.Tensor,
        objective: Objective,
        targets: Mapping[str, torch.Tensor],
    ) -> None:
        """Take one step: smashed data and targets go up, the gradient at the cut comes down."""
        smashed = segment(x)
        sent = {name: target.cpu() for name, target in targets.items()}
        reply, _ = link.exchange({"smashed": smashed.detach().cpu(), **sent})
        optimiser.zero_grad(set_to_none=True)
        smashed.backward(moved(reply["gradient"], smashed.device))
        optimiser.step()

    def _teachers(self, stage: Stage) -> dict[str, nn.Module]:
        """Return the client's side of the frozen networks that a stage's objective asks."""
        segments = {
            "original": lambda: self.segment_of(self.state.load("original") or {}),
            "incompetent": lambda: self.fresh_segment("incompetent"),
        }
        return {name: segments[name]().eval() for name in stage.objective.teachers}

    def _logits_of(
        self,
        link: Link,
        teachers: Mapping[str, nn.Module],
        x: torch.Tensor,
        name: str,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """Return a teacher's logits for some rows of a batch; the link answers for the server."""
        with torch.no_grad():
            smashed = self.bottom(teachers[name])(x[rows.to(x.device)])
            reply, _ = link.exchange({"smashed": smashed.cpu()}, {"teacher": name})
            return self.finish(teachers[name], moved(reply["outputs"], x.device))

    def finish(self, segment: nn.Module, outputs: torch.Tensor) -> torch.Tensor:
        """Return the logits, given the outputs of the server's side."""
        return outputs

    @action
    def take(self, message: Message) -> Message:
        """Take over the segment that another client hands on."""
        self._take_over(message)
        return Message("take")

    def _take_over(self, message: Message) -> None:
        """Keep the segment and momentum that the message carries, if there are any."""
        weights = _part(message.tensors, "segment")
        if weights:
            self.keep_weights(weights)
            self.state.save("momentum", _part(message.tensors, "momentum"))


def _momentum(optimiser: torch.optim.Optimizer, segment: nn.Module) -> dict[str, torch.Tensor]:
    """Return the momentum of each parameter by name; empty without momentum."""
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
    """Return a segment, or a segment and its momentum, as the tensors of one message."""
    return {
        f"{part}/{name}": tensor.detach().cpu().numpy()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def _part(tensors: dict[str, Array], part: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one part of the result of `_carried`."""
    return {
        name.removeprefix(f"{part}/"): torch.from_numpy(array.copy())
        for name, array in tensors.items()
        if name.startswith(f"{part}/")
    }
