"""The server's part of the model and all the server keeps: cache, checkpoints, link, clocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.models.devices import device, name_of
from split_unlearning.models.inputs import Shape
from split_unlearning.models.network import Part
from split_unlearning.models.split import Model
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.gradient_noise import GradientNoise
from split_unlearning.strategies.precision import Precision
from split_unlearning.strategies.server_gradients import ServerGradients
from split_unlearning.strategies.server_model import ServerModel
from split_unlearning.strategies.server_scoring import ServerScoring
from split_unlearning.transport.ledger import Ledger, Row
from split_unlearning.transport.link import Caller
from split_unlearning.transport.message import Array
from split_unlearning.transport.socket_link import LinkServer
from split_unlearning.unlearning.activation_cache import ActivationCache, epoch_order
from split_unlearning.unlearning.exactness import batches
from split_unlearning.unlearning.gradient_projection.codec import Codec
from split_unlearning.unlearning.gradient_projection.sequential import Shares
from split_unlearning.unlearning.stages import Stage
from split_unlearning.unlearning.state_folder import StateFolder, TemporaryFolder
from split_unlearning.unlearning.tensor_store import TensorStore

# Under what it keeps its weights, and the number of labels where that is not the data set's.
_SEGMENT, _LABELS, _CLIENT_SEGMENT = "segment", "labels", "client-segment"


class ServerSegment(ServerScoring):
    """The server's part of the model and everything the server keeps.

    A plain class: it runs in the strategy's process, or as a Ray actor with CPUs and GPUs of its
    own (`strategies.placement`).

    Parameters
    ----------
    model : str or CutModel
        The network, as in ``models.split.build_segment``.
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
    gradient_noise : GradientNoise, optional
        What to add to the gradients at the cut; by default nothing.
    precision : "float32" or "bfloat16"
        What the segment computes with, see `strategies.precision`.

    Raises
    ------
    UserError
        If the GPU cannot compute so.
    """

    def __init__(
        self,
        model: Model,
        input_shape: Shape,
        num_labels: int,
        training: TrainingSettings,
        host: str = "127.0.0.1",
        on_gpu: bool = False,
        part: Part = "server",
        gradient_noise: GradientNoise | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._device = device(on_gpu)
        super().__init__(
            ServerModel(
                part,
                model,
                input_shape,
                num_labels,
                training,
                self._device,
                gradient_noise,
                precision,
            )
        )
        self._training, self._host = training, host
        # Of what is kept, unless it is taken up from somewhere.
        self._temporary = TemporaryFolder()
        self._attempt = ""
        self._ledger = Ledger()
        self._link: LinkServer | None = None
        self._seconds = 0.0
        # The link may be spoken on by several clients at once.
        self._counting = threading.Lock()
        training.fix_kernels()
        self._keep_in(self._temporary)

    def take_up(self, folder: str) -> None:
        """Go on from what a folder keeps, if it keeps anything, and keep everything there.

        Parameters
        ----------
        folder : str
            Where the server's part of the state lies from one run to the next.

        Raises
        ------
        StateError
            If what is there is not as it was written.
        """
        self._keep_in(StateFolder(Path(folder)))

    def _keep_in(self, folder: StateFolder) -> None:
        self._folder, self._kept = folder, TensorStore(folder)
        self._cache = ActivationCache(folder)
        if labels := self._kept.load(_LABELS):
            self._model.expect_labels(int(labels["number"]))
        self._gradients = ServerGradients(self._model, folder, self._training)
        if weights := self._kept.load(_SEGMENT):
            self._model.load(weights)

    def expect_labels(self, num_labels: int) -> None:
        """Tell so many labels apart from now on, in this run and in later ones."""
        self._kept.save(_LABELS, {"number": torch.tensor(num_labels)})
        self._model.expect_labels(num_labels)

    # Stages.

    def initialise(self) -> None:
        """Start from fresh weights, ready to learn; they follow from the seed alone."""
        for name in list(self._folder):
            if name.startswith(_checkpoint("")):
                self._kept.forget(name)
        self._model.initialise()

    def begin(self, stage: Stage) -> None:
        """Go on from the weights there are, with a fresh optimiser, towards a stage's objective."""
        self._model.begin(stage)

    def end(self) -> None:
        """End a stage: its teachers are dropped."""
        self._model.end()

    # Gradient projection, see `ServerGradients`.

    def record_gradients(self, codec: Codec, every: int, lasting: bool) -> str:
        """Cache the gradient of every step from here on; return the name of the training."""
        return self._gradients.record(codec, every, lasting)

    def reopen_gradients(self, codec: Codec, every: int, lasting: bool) -> str:
        """Take up the gradients that an earlier run cached; return the name of their training."""
        return self._gradients.reopen(codec, every, lasting)

    def record_on(self) -> tuple[int, int]:
        """Cache the steps of the stage that has begun too, as `ServerGradients.go_on`."""
        return self._gradients.go_on()

    def keep_learned(self, lasting: bool) -> None:
        """Cache no further gradient, as `ServerGradients.learned`."""
        self._gradients.learned(lasting)

    def scale_rate(self, rate: float) -> None:
        """Set the step size of the stage's steps to come, as a part of that of learning."""
        self._model.scale_rate(rate)

    def gradient_turns(self) -> list[tuple[int, int, int]]:
        """Return who took which steps of learning, as `ServerGradients.turns`."""
        return self._gradients.turns()

    def steps_of(self, clients: Collection[int]) -> dict[int, tuple[int, int]]:
        """Return the cached steps of some clients, as `ServerGradients.steps_of`."""
        return self._gradients.steps_of(clients)

    def step_coefficients(self) -> NDArray[np.float64]:
        """Return c_t of every step of learning."""
        return self._gradients.coefficients()

    def begin_projection(
        self, counts: Mapping[int, int], shares: Shares, beta: float, lasting: bool
    ) -> None:
        """Begin to project; parameters as of `ServerGradients.begin`."""
        self._gradients.begin(counts, shares, beta, lasting)

    def finish_projection(self) -> None:
        """End it: the weights become those that were learned, less what is removed."""
        started = time.perf_counter()
        self._gradients.finish()
        self._seconds += self._elapsed(started)

    def take_projected_step(self, steps: Sequence[int], *how: Any) -> None:
        """Move the weights at once; parameters as of `ServerGradients.take_step`."""
        started = time.perf_counter()
        self._gradients.take_step(steps, *how)
        self._seconds += self._elapsed(started)

    # For clients that are away.

    def keep_client_segment(self, carried: Mapping[str, Array]) -> None:
        """Keep the client segment as it was handed on last, or nothing.

        Parameters
        ----------
        carried : mapping of str to array
            The tensors of the message that hands it on; empty once everybody has it.
        """
        if carried:
            tensors = {name: torch.from_numpy(one.copy()) for name, one in carried.items()}
            self._kept.save(_CLIENT_SEGMENT, tensors)
        else:
            self._kept.forget(_CLIENT_SEGMENT)

    def client_segment(self) -> dict[str, Array]:
        """Return what `keep_client_segment` keeps; empty if nothing."""
        kept = self._kept.load(_CLIENT_SEGMENT) or {}
        return {name: one.numpy() for name, one in kept.items()}

    # State that outlives a run.

    def stage(self, attempt: str) -> None:
        """Begin to change what is kept, under a name that no other attempt has."""
        self._folder.begin(attempt)
        self._attempt = attempt

    def seal(self) -> None:
        """Put on disk what was changed: from here on `commit` needs nothing but the disk."""
        self._kept.save(_SEGMENT, self.state())
        self._folder.flush()

    def commit(self, attempt: str) -> None:
        """Make what an attempt changed the state, and delete what it replaced."""
        self._folder.commit(attempt)
        if attempt != self._attempt:
            # Another process changed it, which did not come to its end.
            self._keep_in(self._folder)

    def attempt(self) -> str:
        """Return the attempt that was committed last; empty if none was."""
        return self._folder.attempt

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
        activations = self._model.checked(torch.tensor(smashed))
        if not activations.isfinite().all():
            raise ValueError(
                f"client {client} sent smashed data that is not finite: its pre-training diverged; "
                "a lower learning-rate may mend it"
            )
        checked = self._model.checked_labels(torch.tensor(labels), len(activations))
        self._cache.add(client, chunk, activations, checked, ids.astype(np.int64))

    def drop_shard(self, client: int) -> None:
        """Remove a client's shard from the cache."""
        self._cache.drop(client)

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
        samples = self._cache.samples(clients)
        visited = epoch_order(samples.keys, self._training.seed, self._model.stage.name, epoch)
        in_batches = batches(len(visited), self._training.batch_size)
        pinned = self._device.type == "cuda"
        for smashed, labels in samples.in_turn(visited, in_batches, pinned):
            self._model.train(smashed, labels)
        self._seconds += self._elapsed(started)

    def keep_checkpoint(self, step: int) -> None:
        """Keep the weights as they are after a step, for requests that start again from there."""
        self._kept.save(_checkpoint(step), self.state())

    def restore_checkpoint(self, step: int) -> None:
        """Go back to the weights after a step, and drop those of all later steps."""
        self._model.load(self._kept.load(_checkpoint(step)) or {})
        later = step + 1
        while _checkpoint(later) in self._folder:
            self._kept.forget(_checkpoint(later))
            later += 1

    def cache_bytes(self) -> int:
        """Return the size of what is cached of training, activations or gradients, in bytes."""
        return self._cache.bytes + self._gradients.bytes

    def received(self) -> dict[str, Array]:
        """Return all that is cached of training data, as who looks at it would.

        Returns
        -------
        dict
            ``smashed``, float32, shape (n, ...); ``labels`` and ``clients``, int64, shape (n,):
            under which label each came, and from whom.
        """
        samples = self._cache.samples()
        return {
            "smashed": samples.smashed().numpy(),
            "labels": samples.labels.numpy(),
            "clients": samples.clients,
        }

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

    def close(self) -> None:
        """Stop hosting the link, and delete what is not to be kept."""
        self.close_link()
        self._temporary.close()
        super().close()

    def branch(self, clients: Sequence[int], epoch: int) -> None:
        """Give each of some clients a copy of the segment to train, with a fresh optimiser."""
        self._model.branch(clients, epoch)

    def merge(self, weights: Mapping[int, float]) -> None:
        """Take the weighted mean of the clients' copies, and end them."""
        self._model.merge(weights)

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
            teacher makes of it is the answer, ``outputs``. ``step``, in gradient projection: the
            frame holds the forgotten samples of that step of learning, see `ServerGradients.share`.

        Raises
        ------
        ValueError
            If tensors are missing, do not fit the segment, or come out of turn.
        """
        model = self._model
        steps: dict[frozenset[str], Callable[..., dict[str, torch.Tensor]]]
        if "teacher" in fields:
            steps = {frozenset({"smashed"}): partial(model.consult, fields["teacher"])}
        elif "step" in fields:
            number = int(fields["step"])
            steps = {frozenset({"smashed", "labels"}): partial(self._gradients.share, number)}
        elif model.part == "trunk":
            steps = {
                frozenset({"smashed"}): partial(model.forward, caller.client),
                frozenset({"feature-gradient"}): partial(model.backward, caller.client),
            }
        else:
            sent = model.stage.objective.sends | {"smashed"}
            steps = {sent: partial(model.step, caller.client)}
        step = steps.get(frozenset(tensors))
        if step is None:
            known = " or ".join(str(sorted(names)) for names in steps)
            raise ValueError(f"a frame holds {known} here, not {sorted(tensors)}")
        with model.turn(caller.client):
            started = time.perf_counter()
            # Each stream is answered by a thread of its own, which inherits no number of threads.
            self._training.fix_kernels()
            self._gradients.announce(caller.client, tensors)
            reply = step(tensors)
            spent = self._elapsed(started)
        with self._counting:
            self._seconds += spent
        self._ledger.record(caller.client, caller.phase, server_seconds=spent)
        return {name: tensor.cpu() for name, tensor in reply.items()}, {}

    # What a result asks.

    def digest(self) -> str:
        """Return the SHA-256 of the segment's weights and buffers."""
        return self._model.digest()

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the segment's weights and buffers, on the CPU."""
        return self._model.state()

    def take_seconds(self) -> float:
        """Return the seconds of training since the last call; of copies side by side, the sum."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def take_ledger(self) -> list[Row]:
        """Return what crossed the link since the last call."""
        return self._ledger.take()

    def device_name(self) -> str:
        """Return what the segment computes on."""
        return name_of(self._device)

    def _elapsed(self, started: float) -> float:
        """Return the seconds since `started`, with all that a GPU still had to do."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started


def _checkpoint(step: int | str) -> str:
    return f"step-{step}"
