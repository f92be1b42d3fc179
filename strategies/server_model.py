"""The server's weights and how they are trained: towards a stage's objective, batch by batch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.averaging import weighted_average
from split_unlearning.models.devices import moved
from split_unlearning.models.drawing import computed_seeded, seeded
from split_unlearning.models.inputs import Shape
from split_unlearning.models.network import Part
from split_unlearning.models.split import Model, build_segment, smashed_shape
from split_unlearning.models.training import TrainingSettings, finite, train_batch
from split_unlearning.strategies.gradient_noise import GradientNoise
from split_unlearning.strategies.precision import Precision, check_device, computed, laid_out
from split_unlearning.strategies.relearning import epochs_to_relearn
from split_unlearning.unlearning.exactness import digest
from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.codec import Gradients
from split_unlearning.unlearning.gradient_projection.recorder import Recorder
from split_unlearning.unlearning.objectives import CrossEntropy
from split_unlearning.unlearning.stages import Stage, learning

_PREDICTED = 512


@dataclass
class _Copy:
    """One set of weights in training, and what its random draws are named by."""

    segment: nn.Sequential
    optimiser: torch.optim.SGD
    name: tuple[str | int, ...]
    steps: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """One batch at a time."""


class ServerModel:
    """What the server holds of the network, its optimiser, and what a stage needs beside them.

    Parameters
    ----------
    part : Part
        What of the network the server holds: all behind the cut, or the trunk of a U shape.
    model : str or CutModel
        The network, as in ``models.split.build_segment``.
    input_shape : tuple of int
        Channels, height and width of a client's images.
    num_labels : int
        Number of labels.
    training : TrainingSettings
        What both sides agree on.
    device : torch.device
        Where to compute.
    gradient_noise : GradientNoise, optional
        What to add to the gradients at the cut that `step` returns; by default nothing.
    precision : "float32" or "bfloat16"
        What the segment computes with, see `strategies.precision`.

    Raises
    ------
    UserError
        If the device cannot compute so.
    """

    def __init__(
        self,
        part: Part,
        model: Model,
        input_shape: Shape,
        num_labels: int,
        training: TrainingSettings,
        device: torch.device,
        gradient_noise: GradientNoise | None = None,
        precision: Precision = "float32",
    ) -> None:
        check_device(precision, device)
        self.part: Part = part
        self._shape = (part, model, input_shape, num_labels)
        self._num_labels = num_labels
        self._smashed_shape = smashed_shape(model, input_shape, num_labels)
        self._training = training
        self._device = device
        self._gradient_noise = gradient_noise
        self._precision: Precision = precision
        self.initialise()

    def expect_labels(self, num_labels: int) -> None:
        """Tell so many labels apart from now on; starts from fresh weights."""
        self._shape = (*self._shape[:3], num_labels)
        self._num_labels = num_labels
        self.initialise()

    # Stages.

    def initialise(self) -> None:
        """Start from fresh weights, ready to learn; they follow from the seed alone."""
        self._start_with(self._fresh("server-segment"), learning(self._training.server_epochs))

    def begin(self, stage: Stage) -> None:
        """Go on from the weights there are, with a fresh optimiser, towards a stage's objective."""
        self._start_with(self._main.segment, stage)

    def _start_with(self, segment: nn.Sequential, stage: Stage) -> None:
        self.stage = stage
        self._main = _Copy(segment.train(), self._training.optimiser(segment), (stage.name,))
        self._copies: dict[int, _Copy] = {}
        self._open: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        teachers = {
            "original": lambda: copy.deepcopy(segment),
            "incompetent": lambda: self._fresh("incompetent-server-segment"),
        }
        self._teachers = {name: teachers[name]().eval() for name in stage.objective.teachers}

    def end(self) -> None:
        """End a stage: its teachers are dropped."""
        self._teachers = {}

    def _fresh(self, purpose: str) -> nn.Sequential:
        seed = derive_seed(self._training.seed, purpose)
        return laid_out(build_segment(*self._shape, seed).to(self._device), self._precision)

    # Gradients.

    def record(self, cache: GradientCache, first: int, weights_every: int, stage: int) -> Recorder:
        """Put every step of the stage into a cache; parameters as of `Recorder`."""
        main = self._main
        return Recorder(cache, main.segment, main.optimiser, first, weights_every, stage)

    def scale_rate(self, rate: float) -> None:
        """Set the step size of the stage's steps to come, as a part of that of learning."""
        for group in self._main.optimiser.param_groups:
            group["lr"] = self._training.learning_rate * rate

    def parameters(self) -> dict[str, torch.Tensor]:
        """Return the segment's parameters, by name."""
        return {name: one.detach() for name, one in self._main.segment.named_parameters()}

    def gradients_at(
        self, weights: Gradients, tensors: Mapping[str, torch.Tensor], scale: float, step: int
    ) -> tuple[Gradients, torch.Tensor]:
        """Return the gradient of a batch's loss at other weights; nothing is learned.

        Parameters
        ----------
        weights : dict of str to tensor
            Of every parameter.
        tensors : mapping
            ``smashed`` and ``labels``.
        scale : float
            What the mean loss is multiplied by.
        step : int
            Names the draws of random layers.

        Returns
        -------
        dict, tensor
            By parameter, and at the cut.
        """
        x = self._received(tensors["smashed"])
        labels = moved(self.checked_labels(tensors["labels"], len(x)), self._device)
        held = {name: one.detach().clone().requires_grad_() for name, one in weights.items()}
        with seeded(derive_seed(self._training.seed, "forgotten-share", step)):
            logits = functional_call(self._main.segment, held, (x,))
        loss = finite(CrossEntropy().loss(logits, {"labels": labels})) * scale
        *shares, cut = torch.autograd.grad(loss, [*held.values(), x], materialize_grads=True)
        return dict(zip(held, shares, strict=True)), cut

    # Copies, one a client.

    def branch(self, clients: Sequence[int], epoch: int) -> None:
        """Give each of some clients a copy of the segment to train, with a fresh optimiser."""
        for client in clients:
            segment = copy.deepcopy(self._main.segment)
            optimiser = self._training.optimiser(segment)
            self._copies[client] = _Copy(segment, optimiser, (self.stage.name, client, epoch))

    def merge(self, weights: Mapping[int, float]) -> None:
        """Take the weighted mean of the clients' copies, and end them."""
        states = [self._copies[client].segment.state_dict() for client in weights]
        self._main.segment.load_state_dict(weighted_average(states, list(weights.values())))
        self._copies = {}

    def _copy_of(self, client: int) -> _Copy:
        """Return the weights that a client trains: its own copy if it was given one."""
        return self._copies.get(client, self._main)

    # Steps.

    def turn(self, client: int) -> threading.Lock:
        """Return what to hold while a batch of a client's is answered.

        Clients with copies of their own need not wait for each other, but on a GPU: there they
        would anyway.
        """
        of = self._main if self._device.type == "cuda" else self._copy_of(client)
        return of.turn

    def train(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        """Learn from a batch of cached samples."""
        targets = {"labels": moved(labels, self._device)}
        self._train(self._main, moved(x, self._device), targets)

    def step(self, client: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Learn from a batch of a client's.

        Parameters
        ----------
        client : int
            Whose.
        tensors : mapping
            ``smashed``, and what the stage's objective sends, one row a sample.

        Returns
        -------
        dict
            The ``gradient`` at the cut.
        """
        x = self._received(tensors["smashed"])
        targets = {
            name: moved(self._checked_target(name, target, len(x)), self._device)
            for name, target in tensors.items()
            if name != "smashed"
        }
        trained = self._copy_of(client)
        self._train(trained, x, targets)
        return {"gradient": self._noisy(_gradient_of(x), targets, client, trained)}

    def _noisy(
        self,
        gradient: torch.Tensor,
        targets: Mapping[str, torch.Tensor],
        client: int,
        trained: _Copy,
    ) -> torch.Tensor:
        """Return the gradients of a step that was just taken as its client is sent them."""
        if self._gradient_noise is None:
            return gradient
        step = (*trained.name, client, trained.steps)
        seed = derive_seed(self._training.seed, "cut-gradient-noise", *step)
        return self._gradient_noise.added_to(gradient, targets.get("labels"), seed)

    def _train(self, trained: _Copy, x: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> None:
        """Take one step towards the stage's objective."""
        loss = partial(self.stage.objective.loss, targets=targets)
        train_batch(partial(self._forward, trained), trained.optimiser, x, loss)

    def _forward(self, trained: _Copy, x: torch.Tensor) -> torch.Tensor:
        """Take a batch through one copy, in training; copies wait for each other where one draws.

        Dropout's numbers follow from the copy and the number of the step.
        """
        seed = derive_seed(self._training.seed, "server-step", *trained.name, trained.steps)
        trained.steps += 1
        return self._computed(partial(computed_seeded, trained.segment, seed=seed), x)

    def _computed(
        self, segment: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
    ) -> torch.Tensor:
        return computed(segment, x, self._precision)

    def forward(self, client: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take a batch through the trunk, and keep it for the gradient that will come back.

        Returns
        -------
        dict
            The ``features`` that leave the trunk.
        """
        x = self._received(tensors["smashed"])
        features = self._forward(self._copy_of(client), x)
        self._open[client] = x, features
        return {"features": features.detach()}

    def backward(self, client: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Step the trunk with the ``feature-gradient`` that came back.

        Returns
        -------
        dict
            The ``gradient`` at the cut.

        Raises
        ------
        ValueError
            If it belongs to no features, or does not fit them.
        """
        if client not in self._open:
            raise ValueError(f"client {client} sends a gradient before any smashed data")
        x, features = self._open.pop(client)
        gradient = moved(tensors["feature-gradient"], self._device)
        if gradient.dtype != features.dtype or gradient.shape != features.shape:
            raise ValueError(
                f"the gradient is {gradient.dtype} of shape {tuple(gradient.shape)}; the features "
                f"were {features.dtype} of shape {tuple(features.shape)}"
            )
        optimiser = self._copy_of(client).optimiser
        optimiser.zero_grad(set_to_none=True)
        features.backward(gradient)
        optimiser.step()
        return {"gradient": _gradient_of(x)}

    def consult(self, teacher: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what this side of a teacher makes of a batch, ``outputs``; nothing is learned.

        Raises
        ------
        ValueError
            If the stage has no such teacher.
        """
        if teacher not in self._teachers:
            known = ", ".join(self._teachers) or "none"
            raise ValueError(f"there is no teacher {teacher!r} in this stage; there are: {known}")
        with torch.no_grad():
            x = self._received(tensors["smashed"])
            return {"outputs": self._computed(self._teachers[teacher], x)}

    def outputs(self, smashed: torch.Tensor) -> NDArray[np.float32]:
        """Return what the segment makes of samples; nothing is learned.

        Returns
        -------
        array of float32, shape (n, ...)
            Logits; of a trunk, the features that its client's head takes.
        """
        segment = self._main.segment.eval()
        with torch.no_grad():
            # One empty chunk for an empty upload, for the shape of its nothing.
            starts = range(0, max(1, len(smashed)), _PREDICTED)
            sent = (moved(smashed[one : one + _PREDICTED], self._device) for one in starts)
            chunks = [self._computed(segment, x).cpu() for x in sent]
        segment.train()
        outputs: NDArray[np.float32] = torch.cat(chunks).numpy()
        return outputs

    def epochs_to_relearn(
        self, smashed: torch.Tensor, labels: torch.Tensor, wanted: float, most: int
    ) -> int | None:
        """Have a copy learn samples again, as `strategies.relearning`; the segment stays."""
        segment = copy.deepcopy(self._main.segment)
        x, y = moved(smashed, self._device), moved(labels, self._device)
        compute = partial(self._computed, segment)
        return epochs_to_relearn(segment, compute, x, y, wanted, most, self._training)

    # The weights.

    def digest(self) -> str:
        """Return the SHA-256 of the segment's weights and buffers."""
        return digest(self._main.segment.state_dict())

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the segment's weights and buffers, on the CPU, contiguous."""
        return {
            name: value.cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self._main.segment.state_dict().items()
        }

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights and buffers."""
        self._main.segment.load_state_dict(weights)

    # Checks of what comes from clients.

    def _received(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return a batch of smashed data, ready for a gradient of its own, not of the caller's."""
        checked = self.checked(smashed)
        if not len(checked):
            raise ValueError("a batch of 0 samples cannot be learned from")
        return moved(checked, self._device).detach().requires_grad_()

    def checked(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return smashed data.

        Raises
        ------
        ValueError
            If it does not fit the segment.
        """
        fits = smashed.ndim and tuple(smashed.shape[1:]) == self._smashed_shape
        if smashed.dtype != torch.float32 or not fits:
            raise ValueError(
                f"smashed data is {smashed.dtype} of shape {tuple(smashed.shape)}; this server "
                f"segment takes torch.float32 of shape {('n', *self._smashed_shape)}"
            )
        return smashed

    def _checked_target(self, name: str, target: torch.Tensor, samples: int) -> torch.Tensor:
        """Refuse what an objective cannot mean; the labels' meaning is known."""
        if name == "labels":
            return self.checked_labels(target, samples)
        if target.ndim == 0 or len(target) != samples:
            raise ValueError(
                f"{name} has the shape {tuple(target.shape)} for {samples} samples; it takes one "
                "row a sample"
            )
        if not target.isfinite().all():
            raise ValueError(f"{name} is not finite")
        return target

    def checked_labels(self, labels: torch.Tensor, samples: int) -> torch.Tensor:
        """Return labels.

        Raises
        ------
        ValueError
            If they do not fit so many samples, or the segment.
        """
        if labels.dtype != torch.int64 or tuple(labels.shape) != (samples,):
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)} for {samples} samples"
            )
        if samples and (int(labels.min()) < 0 or int(labels.max()) >= self._num_labels):
            raise ValueError(f"labels are outside 0..{self._num_labels - 1}")
        return labels


def _gradient_of(x: torch.Tensor) -> torch.Tensor:
    assert x.grad is not None
    return x.grad.contiguous()
