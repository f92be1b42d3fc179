"""The server's part of the model: its segment, its optimiser, its activation cache, its link."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.averaging import weighted_average
from models.split import Part, build_segment, seeded, smashed_shape
from models.training import TrainingSettings, train_batch
from transport.grpc_link import LinkServer
from transport.ledger import Ledger, Row
from transport.link import Caller
from transport.message import Array
from unlearning.activation_cache import ActivationCache, epoch_order
from unlearning.exactness import batches, derive_seed, digest
from unlearning.stages import Stage, learning


@dataclass
class _Copy:
    """One set of weights in training, and what its random draws are named by."""

    segment: nn.Sequential
    optimiser: torch.optim.SGD
    name: tuple[str | int, ...]
    steps: int = 0


class ServerSegment:
    """The server's part of the model and everything the server keeps.

    A plain class: it runs in the strategy's process, or as a Ray actor with CPUs and GPUs of its
    own (`strategies.placement`).

    Parameters
    ----------
    model : str
        A name in ``models.split.MODELS``.
    input_shape : tuple of int
        Channels, height and width of a client's images.
    num_labels : int
        Number of labels.
    training : TrainingSettings
        What both sides agree on.
    host : str
        Address the link binds to.
    on_gpu : bool
        Whether to compute on the GPU that this process was given.
    part : Part
        What of the network the server holds: all behind the cut, or the trunk of a U shape.
    """

    def __init__(
        self,
        model: str,
        input_shape: tuple[int, int, int],
        num_labels: int,
        training: TrainingSettings,
        host: str = "127.0.0.1",
        on_gpu: bool = False,
        part: Part = "server",
    ) -> None:
        self._shape = (part, model, input_shape, num_labels)
        self._num_labels = num_labels
        self._smashed_shape = smashed_shape(model, input_shape, num_labels)
        self._training, self._host = training, host
        # Ray can pretend to have a GPU; the result names the device that was really used.
        self._device = torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu")
        self._cache = ActivationCache()
        self._test_cache = ActivationCache()
        self._ledger = Ledger()
        self._link: LinkServer | None = None
        # One batch at a time: the link may be spoken on by several clients at once.
        self._turn = threading.Lock()
        self._seconds = 0.0
        training.fix_kernels()
        self.initialise()

    def initialise(self) -> None:
        """Start from fresh weights, ready to learn; they follow from the seed alone."""
        self._checkpoints: dict[int, dict[str, torch.Tensor]] = {}
        self._start_with(self._fresh("server-segment"), learning(self._training.server_epochs))

    def begin(self, stage: Stage) -> None:
        """Go on from the weights there are, with a fresh optimiser, towards a stage's objective."""
        self._start_with(self._main.segment, stage)

    def _start_with(self, segment: nn.Sequential, stage: Stage) -> None:
        self._stage = stage
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
        return build_segment(*self._shape, seed).to(self._device)

    # SplitWiper: the cache.

    def cache(self, client: int, chunk: int, smashed: Array, labels: Array, ids: Array) -> None:
        """Take one chunk of a client's smashed data; chunk 0 replaces the client's shard.

        Parameters
        ----------
        smashed : array of float32, shape (n, ...)
        labels, ids : array of int64, shape (n,)

        Raises
        ------
        ValueError
            If shapes, lengths, labels or chunk numbers do not fit, or a value is not finite.
        """
        activations = self._checked(torch.tensor(smashed))
        if not activations.isfinite().all():
            raise ValueError(
                f"client {client} sent smashed data that is not finite: its pre-training diverged; "
                "a lower learning-rate may mend it"
            )
        checked = self._checked_labels(torch.tensor(labels), len(activations))
        self._cache.add(client, chunk, activations, checked, ids.astype(np.int64))

    def train_on_cache(self, epoch: int, clients: Sequence[int] | None = None) -> None:
        """Train for one epoch on what is cached (Algorithm 1, lines 15-17).

        Parameters
        ----------
        epoch : int
            From 0 in each stage.
        clients : sequence of int, optional
            Whose shards; default everybody's.
        """
        started = time.perf_counter()
        smashed, labels, keys = self._cache.samples(clients)
        visited = epoch_order(keys, self._training.seed, self._stage.name, epoch)
        for batch in batches(len(visited), self._training.batch_size):
            x = smashed[visited[batch]].to(self._device)
            y = labels[visited[batch]].to(self._device)
            self._train(self._main, x, {"labels": y})
        self._seconds += self._elapsed(started)

    def keep_checkpoint(self, step: int) -> None:
        """Keep the weights as they are after a step, for requests that start again from there."""
        self._checkpoints[step] = self.state()

    def restore_checkpoint(self, step: int) -> None:
        """Go back to the weights after a step, and drop those of all later steps."""
        self._main.segment.load_state_dict(self._checkpoints[step])
        self._checkpoints = {kept: self._checkpoints[kept] for kept in range(step + 1)}

    def cache_bytes(self) -> int:
        """Return the size of the cached training activations and labels, in bytes."""
        return self._cache.bytes

    # Evaluation.

    def cache_test(self, client: int, chunk: int, smashed: Array) -> None:
        """Take one chunk of a client's test activations; labels stay with the client."""
        tensor = self._checked(torch.tensor(smashed))
        nothing = torch.zeros(len(tensor), dtype=torch.int64)
        self._test_cache.add(client, chunk, tensor, nothing, nothing.numpy())

    def outputs(self, client: int) -> NDArray[np.float32]:
        """Return what the segment makes of each of a client's test samples, in upload order.

        Returns
        -------
        array of float32, shape (n, ...)
            Logits; of a trunk, the features that its client's head takes.
        """
        smashed = self._test_cache.smashed(client)
        segment = self._main.segment.eval()
        with torch.no_grad():
            chunks = [
                segment(smashed[start : start + 512].to(self._device)).cpu()
                # One empty chunk for an empty upload, for the shape of its nothing.
                for start in range(0, max(1, len(smashed)), 512)
            ]
        segment.train()
        outputs: NDArray[np.float32] = torch.cat(chunks).numpy()
        return outputs

    def predict(self, client: int) -> NDArray[np.int64]:
        """Return the predicted label of each of a client's test samples, in upload order."""
        predictions: NDArray[np.int64] = self.outputs(client).argmax(axis=1)
        return predictions

    # Vanilla: every batch over the link.

    def open_link(self) -> dict[str, str]:
        """Host the link; return what a client needs to join it, as fields of an instruction."""
        if self._link is None:
            self._link = LinkServer(self.answer, self._ledger, host=self._host)
        return self._link.endpoint.to_fields()

    def close_link(self) -> None:
        """Stop hosting the link."""
        if self._link is not None:
            self._link.stop()
            self._link = None

    def branch(self, clients: Sequence[int], epoch: int) -> None:
        """Give each of some clients a copy of the segment to train, with a fresh optimiser."""
        for client in clients:
            segment = copy.deepcopy(self._main.segment)
            optimiser = self._training.optimiser(segment)
            self._copies[client] = _Copy(segment, optimiser, (self._stage.name, client, epoch))

    def merge(self, weights: Mapping[int, float]) -> None:
        """Take the weighted mean of the clients' copies, and end them."""
        states = [self._copies[client].segment.state_dict() for client in weights]
        self._main.segment.load_state_dict(weighted_average(states, list(weights.values())))
        self._copies = {}

    def answer(
        self, caller: Caller, tensors: dict[str, torch.Tensor], fields: dict[str, str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Answer one frame of a client's: what it holds says which step it asks for.

        Parameters
        ----------
        caller : Caller
            Who sends the frame.
        tensors : dict
            ``smashed``, float32, shape (n, ...), and what the stage's objective sends, one row a
            sample (in learning ``labels``, int64, shape (n,)): a whole step, answered with the
            ``gradient`` at the cut. In a U shape ``smashed`` alone, answered with the ``features``
            that leave the trunk, and then ``feature-gradient``, answered with the ``gradient`` at
            the cut.
        fields : dict
            ``teacher``, to ask one: the frame holds ``smashed`` alone, and what this side of the
            teacher makes of it is the answer, ``outputs``.

        Raises
        ------
        ValueError
            If tensors are missing, do not fit the segment, or come out of turn.
        """
        steps: dict[frozenset[str], Callable[..., dict[str, torch.Tensor]]]
        if "teacher" in fields:
            steps = {frozenset({"smashed"}): partial(self._consult, fields["teacher"])}
        elif self._shape[0] == "trunk":
            steps = {
                frozenset({"smashed"}): self._forward,
                frozenset({"feature-gradient"}): self._backward,
            }
        else:
            steps = {self._stage.objective.sends | {"smashed"}: self._step}
        step = steps.get(frozenset(tensors))
        if step is None:
            known = " or ".join(str(sorted(names)) for names in steps)
            raise ValueError(f"a frame holds {known} here, not {sorted(tensors)}")
        with self._turn:
            started = time.perf_counter()
            # Each stream is answered by a thread of its own, which inherits no number of threads.
            self._training.fix_kernels()
            reply = step(caller, tensors)
            spent = self._elapsed(started)
            self._seconds += spent
        self._ledger.record(caller.client, caller.phase, server_seconds=spent)
        return {name: tensor.cpu() for name, tensor in reply.items()}, {}

    def _step(self, caller: Caller, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Learn from a batch; return the gradient at the cut."""
        x = self._received(tensors["smashed"])
        targets = {
            name: self._checked_target(name, target, len(x)).to(self._device)
            for name, target in tensors.items()
            if name != "smashed"
        }
        self._train(self._copy_of(caller), x, targets)
        return {"gradient": _gradient_of(x)}

    def _train(self, trained: _Copy, x: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> None:
        """Take one step towards the stage's objective."""
        with self._next_step(trained):
            loss = partial(self._stage.objective.loss, targets=targets)
            train_batch(trained.segment, trained.optimiser, x, loss)

    def _consult(
        self, teacher: str, caller: Caller, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return what this side of a teacher makes of a batch; nothing is learned."""
        if teacher not in self._teachers:
            known = ", ".join(self._teachers) or "none"
            raise ValueError(f"there is no teacher {teacher!r} in this stage; there are: {known}")
        with torch.no_grad():
            return {"outputs": self._teachers[teacher](self._received(tensors["smashed"]))}

    def _forward(self, caller: Caller, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take a batch through the trunk, and keep it for the gradient that will come back."""
        x = self._received(tensors["smashed"])
        trained = self._copy_of(caller)
        with self._next_step(trained):
            features = trained.segment(x)
        self._open[caller.client] = x, features
        return {"features": features.detach()}

    def _backward(
        self, caller: Caller, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Step the trunk with the gradient that came back; return the gradient at the cut."""
        if caller.client not in self._open:
            raise ValueError(f"client {caller.client} sends a gradient before any smashed data")
        x, features = self._open.pop(caller.client)
        gradient = tensors["feature-gradient"].to(self._device)
        if gradient.dtype != features.dtype or gradient.shape != features.shape:
            raise ValueError(
                f"the gradient is {gradient.dtype} of shape {tuple(gradient.shape)}; the features "
                f"were {features.dtype} of shape {tuple(features.shape)}"
            )
        optimiser = self._copy_of(caller).optimiser
        optimiser.zero_grad(set_to_none=True)
        features.backward(gradient)
        optimiser.step()
        return {"gradient": _gradient_of(x)}

    def _received(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return a batch of smashed data, ready for a gradient of its own, not of the caller's."""
        checked = self._checked(smashed)
        if not len(checked):
            raise ValueError("a batch of 0 samples cannot be learned from")
        return checked.to(self._device).detach().requires_grad_()

    # What a result asks.

    def digest(self) -> str:
        """Return the SHA-256 of the segment's weights and buffers."""
        return digest(self._main.segment.state_dict())

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the segment's weights and buffers, on the CPU."""
        return {
            name: value.cpu().clone() for name, value in self._main.segment.state_dict().items()
        }

    def take_seconds(self) -> float:
        """Return the seconds spent training since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def take_ledger(self) -> list[Row]:
        """Return what crossed the link since the last call."""
        return self._ledger.take()

    def device_name(self) -> str:
        """Return what the segment computes on."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return "cpu"

    def _elapsed(self, started: float) -> float:
        """Return the seconds since `started`, with all that a GPU still had to do."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started

    def _copy_of(self, caller: Caller) -> _Copy:
        """Return the weights that a client trains: its own copy if it was given one."""
        return self._copies.get(caller.client, self._main)

    def _next_step(self, trained: _Copy) -> AbstractContextManager[None]:
        """Give dropout its own numbers, which follow from the copy and the number of the step."""
        seed = derive_seed(self._training.seed, "server-step", *trained.name, trained.steps)
        trained.steps += 1
        return seeded(seed)

    def _checked(self, smashed: torch.Tensor) -> torch.Tensor:
        """Refuse smashed data that does not fit the segment."""
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
            return self._checked_labels(target, samples)
        if target.ndim == 0 or len(target) != samples:
            raise ValueError(
                f"{name} has the shape {tuple(target.shape)} for {samples} samples; it takes one "
                "row a sample"
            )
        if not target.isfinite().all():
            raise ValueError(f"{name} is not finite")
        return target

    def _checked_labels(self, labels: torch.Tensor, samples: int) -> torch.Tensor:
        """Refuse labels that do not fit the batch."""
        if labels.dtype != torch.int64 or tuple(labels.shape) != (samples,):
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)} for {samples} samples"
            )
        if samples and (int(labels.min()) < 0 or int(labels.max()) >= self._num_labels):
            raise ValueError(f"labels are outside 0..{self._num_labels - 1}")
        return labels


def _gradient_of(x: torch.Tensor) -> torch.Tensor:
    assert x.grad is not None
    return x.grad
