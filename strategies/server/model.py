"""The server's weights and how they are trained: towards a stage's objective, batch by batch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.averaging import weighted_average
from split_unlearning.models.devices import moved, name_of
from split_unlearning.models.split import build_segment, smashed_shape
from split_unlearning.models.training import finite
from split_unlearning.strategies.server.part import Parts, ServerPart, Tensors, check_holds, frame
from split_unlearning.strategies.server.precision import check_device, forward, laid_out
from split_unlearning.strategies.server.relearning import epochs_to_relearn
from split_unlearning.unlearning.exactness import digest
from split_unlearning.unlearning.stages import Stage, learning
from split_unlearning.unlearning.state_folder import StateFolder
from split_unlearning.unlearning.tensor_store import TensorStore

# Under what it keeps its weights, and the number of labels where that is not the data set's.
_SEGMENT, _LABELS = "segment", "labels"
_CHECKPOINT = "step-"

_PREDICTED = 512


@dataclass
class _Trained:
    """One set of weights in training, and what its random draws are named by."""

    segment: nn.Sequential
    optimiser: torch.optim.SGD
    name: tuple[str | int, ...]
    steps: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """One batch at a time."""


def kept_weights(kept: TensorStore, num_labels: int) -> tuple[dict[str, torch.Tensor] | None, int]:
    """Return the weights that a server keeps, if any, and how many labels they tell apart.

    `num_labels` is the data set's number, which holds where no other is kept.
    """
    labels = kept.load(_LABELS)
    return kept.load(_SEGMENT), int(labels["number"]) if labels else num_labels


class ServerModel(ServerPart):
    """What the server holds of the network, its optimiser, and what a stage needs beside them.

    Each of the `watchers` is called before a step on a client's batch, with the client and the
    number of samples; there is none at the beginning of a stage.

    Raises
    ------
    UserError
        If the device cannot compute in the precision that is asked for.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        setting, self._device = parts.setting, parts.device
        check_device(setting.precision, self._device)
        self._num_labels = setting.num_labels
        self._smashed_shape = smashed_shape(setting.model, setting.input_shape, setting.num_labels)
        self._start_afresh()

    # What is kept.

    def take_up(self, folder: StateFolder) -> None:
        """Go on with the weights that a folder keeps."""
        super().take_up(folder)
        weights, labels = kept_weights(self.kept, self._num_labels)
        if labels != self._num_labels:
            self._num_labels = labels
            self._start_afresh()
        if weights:
            self.load(weights)

    def keep(self) -> None:
        """Write the weights."""
        self.kept.save(_SEGMENT, self.state())

    def expect_labels(self, num_labels: int) -> None:
        """Tell so many labels apart from now on, in later runs too; starts from fresh weights."""
        self.kept.save(_LABELS, {"number": torch.tensor(num_labels)})
        self._num_labels = num_labels
        self._start_afresh()

    def keep_checkpoint(self, step: int) -> None:
        """Keep the weights as they are after a step, for requests that start again from there."""
        self.kept.save(f"{_CHECKPOINT}{step}", self.state())

    def restore_checkpoint(self, step: int) -> None:
        """Go back to the weights after a step, and drop those of all later steps."""
        self.load(self.kept.load(f"{_CHECKPOINT}{step}") or {})
        later = step + 1
        while f"{_CHECKPOINT}{later}" in self.folder:
            self.kept.forget(f"{_CHECKPOINT}{later}")
            later += 1

    # Stages.

    def initialise(self) -> None:
        """Start from fresh weights, ready to learn; they follow from the seed alone."""
        for name in list(self.folder):
            if name.startswith(_CHECKPOINT):
                self.kept.forget(name)
        self._start_afresh()

    def begin(self, stage: Stage) -> None:
        """Go on from the weights there are, with a fresh optimiser, towards a stage's objective."""
        self._start_with(self.segment, stage)

    def end(self) -> None:
        """End a stage: its teachers are dropped."""
        self._teachers.clear()

    def _start_afresh(self) -> None:
        self._start_with(self._fresh("server-segment"), learning(self.training.server_epochs))

    def _start_with(self, segment: nn.Sequential, stage: Stage) -> None:
        self.stage = stage
        self.watchers: list[Callable[[int, int], None]] = []
        self._main = _Trained(segment.train(), self.training.optimiser(segment), (stage.name,))
        self._copies: dict[int, _Trained] = {}
        self._open: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        teachers = {
            "original": lambda: copy.deepcopy(segment),
            "incompetent": lambda: self._fresh("incompetent-server-segment"),
        }
        self._teachers = {name: teachers[name]().eval() for name in stage.objective.teachers}

    def _fresh(self, purpose: str) -> nn.Sequential:
        setting, seed = self.setting, derive_seed(self.training.seed, purpose)
        shape = (setting.part, setting.model, setting.input_shape, self._num_labels)
        return laid_out(build_segment(*shape, seed).to(self._device), setting.precision)

    # Copies, one a client.

    def branch(self, clients: Sequence[int], epoch: int) -> None:
        """Give each of some clients a copy of the segment to train, with a fresh optimiser."""
        for client in clients:
            segment = copy.deepcopy(self.segment)
            optimiser = self.training.optimiser(segment)
            self._copies[client] = _Trained(segment, optimiser, (self.stage.name, client, epoch))

    def merge(self, weights: Mapping[int, float]) -> None:
        """Take the weighted mean of the clients' copies, and end them."""
        states = [self._copies[client].segment.state_dict() for client in weights]
        self.load(weighted_average(states, list(weights.values())))
        self._copies = {}

    def turn(self, client: int) -> threading.Lock:
        """Return what to hold while a frame of a client's is answered.

        Clients with copies of their own need not wait for each other, but on a GPU: there they
        would anyway.
        """
        of = self._main if self._device.type == "cuda" else self._copies.get(client, self._main)
        return of.turn

    # Steps.

    def train(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        """Take a step on a batch of cached samples."""
        self._step(self._main, moved(x, self._device), {"labels": moved(labels, self._device)})

    @frame
    def batch(self, client: int, tensors: Tensors, _: str = "") -> dict[str, torch.Tensor]:
        """Take a step on a client's batch; in a U shape it comes in two frames.

        The tensors are ``smashed``, float32, shape (n, ...), and what the stage's objective sends,
        one row a sample (in learning ``labels``, int64, shape (n,)). In a U shape they are
        ``smashed`` alone, and then ``feature-gradient``.

        Returns
        -------
        dict
            The ``gradient`` at the cut, or the ``features`` that leave the trunk.
        """
        if self.setting.part == "trunk":
            check_holds(tensors, {"smashed"}, {"feature-gradient"})
            if "smashed" in tensors:
                return self._features(client, tensors["smashed"])
            return self._gradient_through(client, tensors["feature-gradient"])
        check_holds(tensors, self.stage.objective.sends | {"smashed"})
        x = self.received(tensors["smashed"])
        targets = {
            name: moved(self._checked_target(name, target, len(x)), self._device)
            for name, target in tensors.items()
            if name != "smashed"
        }
        for watch in self.watchers:
            watch(client, len(x))
        trained = self._copies.get(client, self._main)
        self._step(trained, x, targets)
        gradient = _gradient_of(x)
        if self.setting.gradient_noise is not None:
            step = (*trained.name, client, trained.steps)
            seed = derive_seed(self.training.seed, "cut-gradient-noise", *step)
            gradient = self.setting.gradient_noise.added_to(gradient, targets.get("labels"), seed)
        return {"gradient": gradient}

    def _step(self, trained: _Trained, x: torch.Tensor, targets: Tensors) -> None:
        """Take one step towards the stage's objective."""
        trained.optimiser.zero_grad(set_to_none=True)
        logits = self._forward(trained, x)
        finite(self.stage.objective.loss(logits, targets)).backward()
        trained.optimiser.step()

    def _forward(self, trained: _Trained, x: torch.Tensor) -> torch.Tensor:
        """Take a batch through, in training: what layers draw follows from the step's number."""
        seed = derive_seed(self.training.seed, "server-step", *trained.name, trained.steps)
        trained.steps += 1
        return forward(trained.segment, x, self.setting.precision, seed)

    def _features(self, client: int, smashed: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a batch through the trunk, and keep it for the gradient that will come back."""
        x = self.received(smashed)
        features = self._forward(self._copies.get(client, self._main), x)
        self._open[client] = x, features
        return {"features": features.detach()}

    def _gradient_through(self, client: int, returned: torch.Tensor) -> dict[str, torch.Tensor]:
        """Step the trunk with the gradient of its features that came back."""
        if client not in self._open:
            raise ValueError(f"client {client} sends a gradient before any smashed data")
        x, features = self._open.pop(client)
        gradient = moved(returned, self._device)
        if gradient.dtype != features.dtype or gradient.shape != features.shape:
            raise ValueError(
                f"the gradient is {gradient.dtype} of shape {tuple(gradient.shape)}; the features "
                f"were {features.dtype} of shape {tuple(features.shape)}"
            )
        if not gradient.isfinite().all():
            raise ValueError("the gradient of the features is not finite")
        optimiser = self._copies.get(client, self._main).optimiser
        optimiser.zero_grad(set_to_none=True)
        features.backward(gradient)
        optimiser.step()
        return {"gradient": _gradient_of(x)}

    @frame
    def teacher(self, _: int, tensors: Tensors, name: str) -> dict[str, torch.Tensor]:
        """Return what this side of a teacher makes of a batch, ``outputs``; nothing is learned.

        Raises
        ------
        ValueError
            If the stage has no such teacher.
        """
        check_holds(tensors, {"smashed"})
        if name not in self._teachers:
            known = ", ".join(self._teachers) or "none"
            raise ValueError(f"there is no teacher {name!r} in this stage; there are: {known}")
        with torch.no_grad():
            x = self.received(tensors["smashed"])
            return {"outputs": forward(self._teachers[name], x, self.setting.precision)}

    def outputs(self, smashed: torch.Tensor) -> NDArray[np.float32]:
        """Return what the segment makes of samples; nothing is learned.

        Returns
        -------
        array of float32, shape (n, ...)
            Logits; of a trunk, the features that its client's head takes.
        """
        segment = self.segment.eval()
        with torch.no_grad():
            # One empty chunk for an empty upload, for the shape of its nothing.
            starts = range(0, max(1, len(smashed)), _PREDICTED)
            sent = (moved(smashed[one : one + _PREDICTED], self._device) for one in starts)
            chunks = [forward(segment, x, self.setting.precision).cpu() for x in sent]
        segment.train()
        outputs: NDArray[np.float32] = torch.cat(chunks).numpy()
        return outputs

    def epochs_to_relearn(
        self, smashed: torch.Tensor, labels: torch.Tensor, wanted: float, most: int
    ) -> int | None:
        """Have a copy learn samples again, as `server.relearning`; the segment stays."""
        segment, precision = copy.deepcopy(self.segment), self.setting.precision
        x, y = moved(smashed, self._device), moved(labels, self._device)
        return epochs_to_relearn(segment, precision, x, y, wanted, most, self.training)

    # The weights.

    @property
    def segment(self) -> nn.Sequential:
        """The network behind the cut, in training."""
        return self._main.segment

    @property
    def optimiser(self) -> torch.optim.SGD:
        """What steps it, from the beginning of a stage to the next."""
        return self._main.optimiser

    def digest(self) -> str:
        """Return the SHA-256 of the segment's weights and buffers."""
        return digest(self.segment.state_dict())

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the segment's weights and buffers, on the CPU, contiguous."""
        return {
            name: value.cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.segment.state_dict().items()
        }

    def labels(self) -> int:
        """Return how many labels the segment tells apart."""
        return self._num_labels

    def load(self, weights: Tensors) -> None:
        """Take over weights and buffers."""
        self.segment.load_state_dict(weights)

    def device_name(self) -> str:
        """Return what the segment computes on."""
        return name_of(self._device)

    # Checks of what comes from clients.

    def received(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return a batch of smashed data on the device, ready for a gradient of its own.

        Raises
        ------
        ValueError
            If it is empty, larger than a batch, or does not fit the segment.
        """
        checked = self.checked(smashed)
        if not len(checked):
            raise ValueError("a batch of 0 samples cannot be learned from")
        # A last sample alone joins the batch before it.
        most = self.training.batch_size + 1
        if len(checked) > most:
            raise ValueError(f"a batch has {len(checked)} samples; allowed: at most {most}")
        return moved(checked, self._device).detach().requires_grad_()

    def checked(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return smashed data; raise ValueError if it does not fit the segment."""
        fits = smashed.ndim and tuple(smashed.shape[1:]) == self._smashed_shape
        if smashed.dtype != torch.float32 or not fits:
            raise ValueError(
                f"smashed data is {smashed.dtype} of shape {tuple(smashed.shape)}; this server "
                f"segment takes torch.float32 of shape {('n', *self._smashed_shape)}"
            )
        # Before anything is computed with it: running means would keep it.
        if not smashed.isfinite().all():
            raise ValueError(
                "smashed data is not finite; where training diverged, a lower learning-rate may "
                "mend it"
            )
        return smashed

    def checked_labels(self, labels: torch.Tensor, samples: int) -> torch.Tensor:
        """Return labels; raise ValueError if they do not fit so many samples, or the segment."""
        if labels.dtype != torch.int64 or tuple(labels.shape) != (samples,):
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)} for {samples} samples"
            )
        if samples and (int(labels.min()) < 0 or int(labels.max()) >= self._num_labels):
            raise ValueError(f"labels are outside 0..{self._num_labels - 1}")
        return labels

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


def _gradient_of(x: torch.Tensor) -> torch.Tensor:
    assert x.grad is not None
    return x.grad.contiguous()
