"""The server's part of the model: its segment, its optimiser, its activation cache, its link."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.split import build_server_segment, seeded, smashed_shape
from models.training import TrainingSettings, train_batch
from transport.grpc_link import LinkServer
from transport.ledger import Ledger, Row
from transport.link import Caller
from transport.message import Array
from unlearning.activation_cache import ActivationCache, epoch_order
from unlearning.exactness import batches, derive_seed, digest


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
    """

    def __init__(
        self,
        model: str,
        input_shape: tuple[int, int, int],
        num_labels: int,
        training: TrainingSettings,
        host: str = "127.0.0.1",
        on_gpu: bool = False,
    ) -> None:
        self._model, self._input_shape, self._num_labels = model, input_shape, num_labels
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
        """Start from fresh weights and a fresh optimiser; they follow from the seed alone."""
        seed = derive_seed(self._training.seed, "server-segment")
        segment = build_server_segment(self._model, self._input_shape, self._num_labels, seed)
        self._segment: nn.Sequential = segment.to(self._device).train()
        self._optimiser = self._training.optimiser(self._segment)
        self._steps = 0

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

    def train_on_cache(self, epoch: int) -> None:
        """Train for one epoch on everything that is cached (Algorithm 1, lines 15-17)."""
        started = time.perf_counter()
        smashed, labels, keys = self._cache.samples()
        visited = epoch_order(keys, self._training.seed, epoch)
        for batch in batches(len(visited), self._training.batch_size):
            x = smashed[visited[batch]].to(self._device)
            y = labels[visited[batch]].to(self._device)
            with self._next_step():
                train_batch(self._segment, self._optimiser, x, y)
        self._seconds += self._elapsed(started)

    def cache_bytes(self) -> int:
        """Return the size of the cached training activations and labels, in bytes."""
        return self._cache.bytes

    # Evaluation.

    def cache_test(self, client: int, chunk: int, smashed: Array) -> None:
        """Take one chunk of a client's test activations; labels stay with the client."""
        tensor = self._checked(torch.tensor(smashed))
        nothing = torch.zeros(len(tensor), dtype=torch.int64)
        self._test_cache.add(client, chunk, tensor, nothing, nothing.numpy())

    def predict(self, client: int) -> NDArray[np.int64]:
        """Return the predicted label of each of a client's test samples, in upload order."""
        smashed = self._test_cache.smashed(client)
        self._segment.eval()
        with torch.no_grad():
            logits = [
                self._segment(smashed[start : start + 512].to(self._device)).cpu()
                for start in range(0, len(smashed), 512)
            ]
        self._segment.train()
        predictions = [chunk.argmax(dim=1).numpy() for chunk in logits]
        return np.concatenate([np.empty(0, dtype=np.int64), *predictions])

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

    def answer(
        self, caller: Caller, tensors: dict[str, torch.Tensor], fields: dict[str, str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Take one step on a client's batch and return the gradient at the cut.

        Parameters
        ----------
        caller : Caller
            Who sends the batch.
        tensors : dict
            ``smashed``, float32, shape (n, ...), and ``labels``, int64, shape (n,).
        fields : dict
            Unused.

        Returns
        -------
        dict, dict
            ``gradient``, float32, of the shape of the smashed data; no fields.

        Raises
        ------
        ValueError
            If a tensor is missing or does not fit the segment.
        """
        if set(tensors) != {"smashed", "labels"}:
            raise ValueError(f"a batch is 'smashed' and 'labels', not {sorted(tensors)}")
        # Detached: the gradient is left in a tensor of our own, not in the caller's.
        smashed = self._checked(tensors["smashed"]).to(self._device).detach()
        if not len(smashed):
            raise ValueError("a batch of 0 samples cannot be learned from")
        labels = self._checked_labels(tensors["labels"], len(smashed)).to(self._device)
        with self._turn:
            started = time.perf_counter()
            # Each stream is answered by a thread of its own, which inherits no number of threads.
            self._training.fix_kernels()
            smashed.requires_grad_()
            with self._next_step():
                train_batch(self._segment, self._optimiser, smashed, labels)
            assert smashed.grad is not None
            gradient = smashed.grad.cpu()
            spent = self._elapsed(started)
            self._seconds += spent
        self._ledger.record(caller.client, caller.phase, server_seconds=spent)
        return {"gradient": gradient}, {}

    # What a result asks.

    def digest(self) -> str:
        """Return the SHA-256 of the segment's weights and buffers."""
        return digest(self._segment.state_dict())

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the segment's weights and buffers, on the CPU."""
        return {name: value.cpu().clone() for name, value in self._segment.state_dict().items()}

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

    def _next_step(self) -> AbstractContextManager[None]:
        """Give dropout its own numbers, which follow from the number of the step."""
        seed = derive_seed(self._training.seed, "server-step", self._steps)
        self._steps += 1
        return seeded(seed)

    def _checked(self, smashed: torch.Tensor) -> torch.Tensor:
        """Refuse smashed data that does not fit the segment."""
        if smashed.dtype != torch.float32 or tuple(smashed.shape[1:]) != self._smashed_shape:
            raise ValueError(
                f"smashed data is {smashed.dtype} of shape {tuple(smashed.shape)}; this server "
                f"segment takes torch.float32 of shape {('n', *self._smashed_shape)}"
            )
        return smashed

    def _checked_labels(self, labels: torch.Tensor, samples: int) -> torch.Tensor:
        """Refuse labels that do not fit the batch."""
        if labels.dtype != torch.int64 or tuple(labels.shape) != (samples,):
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)} for {samples} samples"
            )
        if samples and (int(labels.min()) < 0 or int(labels.max()) >= self._num_labels):
            raise ValueError(f"labels are outside 0..{self._num_labels - 1}")
        return labels
