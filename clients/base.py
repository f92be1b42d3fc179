"""What every client does, whatever the protocol: keep a segment, leave samples out, be scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from split_unlearning.clients.acting import ActingClient, action
from split_unlearning.clients.audit import audited
from split_unlearning.clients.forgotten import FORGOTTEN
from split_unlearning.clients.holding import Holding
from split_unlearning.clients.setting import Upload
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.registry import load_object
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.devices import device, moved
from split_unlearning.models.inputs import Shape, blank
from split_unlearning.models.network import Part
from split_unlearning.models.split import Model, build_segment, segment_with
from split_unlearning.transport.floats import pack_arrays
from split_unlearning.transport.link import Endpoint, Link
from split_unlearning.transport.message import Array, Message
from split_unlearning.transport.socket_link import connect
from split_unlearning.unlearning.exactness import Ids, digest, visits
from split_unlearning.unlearning.methods import StagedMethod
from split_unlearning.unlearning.objectives import Batch
from split_unlearning.unlearning.request import Request
from split_unlearning.unlearning.stages import Stage, learning
from split_unlearning.unlearning.state_folder import StateFolder

# Activations are computed in groups of this many samples, counted from the first, so that a chunk
# of an upload holds the same bits as the whole.
_GROUP = 64

# Under what a client keeps its segment, and, while it trains again to verify that, the one that it
# kept.
SEGMENT, KEPT = "segment", "kept"


class SplitClient(ActingClient):
    """Base of every protocol's client.

    `recalled` is what it needs of what it kept, and under what name, when it trains again to verify
    that.
    """

    recalled: ClassVar[Mapping[str, str]] = {FORGOTTEN: FORGOTTEN, KEPT: SEGMENT}

    # The client segment.

    def fresh_segment(self, owner: int | str | None = None) -> nn.Module:
        """Return what the client holds of the network, freshly initialised, on the device.

        Parameters
        ----------
        owner : int or str, optional
            Whose weights: each owner has its own; by default the client's.
        """
        return self.fresh_part("client", owner).to(device())

    def segment_of(self, weights: Mapping[str, torch.Tensor]) -> nn.Module:
        """Return what the client holds of the network, with these weights, on the device."""
        return self.part_with("client", weights).to(device())

    def kept_segment(self) -> nn.Module:
        """Return what the client holds of the network as it last kept it."""
        return self.segment_of(self.kept_weights())

    def bottom(self, segment: nn.Module) -> nn.Module:
        """Return the part of a segment that images enter and smashed data leave."""
        return segment

    def fresh_part(self, part: Part, owner: int | str | None = None) -> nn.Sequential:
        """Return a freshly initialised stretch of the network; weights as in `fresh_segment`."""
        owner = self.client if owner is None else owner
        seed = derive_seed(self.training.seed, f"{part}-segment", owner)
        return build_segment(part, *self._network, seed)

    def part_with(self, part: Part, weights: Mapping[str, torch.Tensor]) -> nn.Sequential:
        """Return a stretch of the network with these weights."""
        return segment_with(part, *self._network, weights)

    def kept_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights that the client last kept, by name."""
        weights = self.state.load(SEGMENT)
        if weights is None:
            raise ValueError(f"client {self.client} has no segment yet")
        return weights

    @property
    def _network(self) -> tuple[Model, Shape, int]:
        return self.setting.model, self.input_shape, self.num_labels

    def keep_segment(self, segment: nn.Module) -> None:
        """Keep the client segment for the messages to come; the answer says its digest."""
        self.keep_weights(segment.state_dict())

    def keep_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Keep the client segment of these weights, as `keep_segment`."""
        self.state.save(SEGMENT, weights)
        self.kept = digest(weights)

    @property
    def input_shape(self) -> Shape:
        """Channels, height and width of this client's images, or tokens of its texts."""
        return tuple(self.whole.x.shape[1:])

    @property
    def num_labels(self) -> int:
        """Number of labels of the data set, also of those this client does not hold."""
        return len(self.whole.class_names)

    # Forgetting, on the client's own data.

    def forget_samples(self, message: Message) -> Request:
        """Leave out, from now on, what the message's request means; this client selects it.

        A request that arrives again is not selected again: its share would be drawn from what is
        left. The answer says how many samples it was.

        Returns
        -------
        Request
            As it was read from the message.
        """
        request = Request.from_field(str(message.fields["request"]))
        self.number = request.number
        self.asked_again = request.number in self.forgotten
        if not self.asked_again:
            selected = request.select(
                self.client,
                self.holding.ids,
                self.holding.names,
                self.holding.class_names,
                self.training.seed,
            )
            self.forgotten.add(request.number, selected)
        self.left_out = len(self.forgotten.hashes(request.number))
        self.holding = self._retained()
        return request

    @action
    def tell_kept(self, message: Message) -> Message:
        """Say the digest of the segment that it kept before it trained again to verify that."""
        weights = self.state.load(KEPT)
        return Message("tell-kept", {"kept": digest(weights) if weights else ""})

    @action
    def commit(self, message: Message) -> Message:
        """Make what an attempt changed the state, and delete what it replaced."""
        if isinstance(self._store, StateFolder):
            self._store.commit(str(message.fields["commit"]))
        return Message("commit")

    @action
    def leave_out(self, message: Message) -> Message:
        """Remove the forgotten samples, and do nothing else yet."""
        self.forget_samples(message)
        return Message("leave-out")

    def stage(self, message: Message) -> Stage:
        """Return the stage that a message is about: learning, or one of the unlearning method's.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        named, method = str(message.fields["stage"]), self.setting.method
        train = learning(self.training.server_epochs)
        if named == train.name or not isinstance(method, StagedMethod):
            return train
        return method.stage(named)

    def visit(
        self, stage: Stage, epoch: int, about: int, holding: Holding | None = None
    ) -> Iterator[tuple[torch.Tensor, Batch]]:
        """Yield the batches of one epoch of a stage, in their seeded order.

        Parameters
        ----------
        stage : Stage
            Which samples it visits.
        epoch : int
            From 0.
        about : int
            The number of the request whose samples are the forgotten ones.
        holding : Holding, optional
            What to visit instead of the samples that the stage names.

        Yields
        ------
        tensor, shape (n, ...); Batch
            The samples, as `Holding` has them, on the device, and what is known of them.
        """
        forgotten = self.meant_by(about)
        if holding is not None:
            visited = holding
        elif stage.samples == "retained":
            visited = self.holding
        elif stage.samples == "forgotten":
            visited = self.whole.only(forgotten)
        else:
            visited = self.whole.only(np.union1d(self.holding.ids, forgotten))
        size, seed = self.training.batch_size, self.training.seed
        for rows in visits(visited.ids, size, seed, stage.name, self.client, epoch):
            ids = visited.ids[rows]
            mask = np.isin(ids, forgotten) if len(forgotten) else np.zeros(len(ids), dtype=bool)
            places = torch.from_numpy(rows)
            known = Batch(ids, visited.y[places], torch.from_numpy(mask), self.num_labels)
            yield moved(visited.x[places], device()), known

    def meant_by(self, request: int) -> Ids:
        """Return the ids of this client's samples that a request meant, by its number."""
        return self.forgotten.meant_by(request, self.whole.ids)

    # What crosses the cut.

    def connect(self, message: Message) -> Link:
        """Open the link to the server segment that a message names."""
        endpoint = Endpoint.from_fields(message.fields)
        return connect(endpoint, self.client, self.phase, self.training.codec)

    # Uploads and scores.

    def smashed(
        self,
        segment: nn.Module,
        x: torch.Tensor,
        start: int,
        stop: int,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the smashed data of samples `start` to `stop` of `x`, on the CPU.

        Parameters
        ----------
        rows : tensor of int64, optional
            The order in which the samples are counted; by default as they are.

        Returns
        -------
        tensor of float32, shape (stop - start, ...)
            The same bits whatever the borders.
        """
        first = start - start % _GROUP
        with torch.no_grad():
            groups = []
            for begin in range(first, max(stop, first + 1), _GROUP):
                group = slice(begin, begin + _GROUP)
                images = x[group] if rows is None else x[rows[group]]
                groups.append(segment(moved(images, device())).cpu())
        return torch.cat(groups)[start - first : stop - first]

    def to_upload(self, segment: nn.Module, what: str) -> Upload:
        """Return what the server caches of a split: ``train``, ``test`` or ``audit``.

        For an audit that is every training sample, forgotten ones too, and with a backdoor the
        test samples with its trigger.
        """
        x = {"test": self.holding.test_x, "audit": self.whole.audited_x}.get(what, self.holding.x)
        known = {}
        if what == "train":
            known = {"labels": self.holding.y.numpy(), "ids": self.holding.ids}
        return Upload(len(x), partial(self.smashed, self.bottom(segment), x), known)

    def upload_chunk(self, segment: nn.Module, what: str, chunk: int) -> Message:
        """Return one chunk of what the server caches.

        Parameters
        ----------
        segment : nn.Module
            The frozen client segment.
        what : "train", "test" or "audit"
            Which split; labels and ids go along with the training split only.
        chunk : int
            Number of the chunk, from 0.
        """
        upload = self.to_upload(segment, what)
        one = self._packed(self.smashed(self.bottom(segment), blank(self.input_shape, 1), 0, 1))
        held = [*one.values(), *(known[:1] for known in upload.known.values())]
        sample_bytes = sum(array.nbytes for array in held)
        samples = max(1, self.setting.upload_chunk_bytes // sample_bytes)
        start, stop = chunk * samples, min((chunk + 1) * samples, upload.samples)
        tensors = self._packed(upload.smashed(start, stop))
        tensors |= {name: known[start:stop] for name, known in upload.known.items()}
        chunks = max(1, -(-upload.samples // samples))
        return Message("upload", {"upload": what, "chunk": chunk, "chunks": chunks}, tensors)

    def _packed(self, smashed: torch.Tensor) -> dict[str, Array]:
        """Return smashed data as it travels in a message."""
        return pack_arrays({"smashed": smashed.numpy()}, self.training.codec)

    @action
    def upload(self, message: Message) -> Message:
        """Send one chunk of the smashed data of a split."""
        return self.upload_chunk(
            self.kept_segment(), str(message.fields["upload"]), message.integer("chunk")
        )

    def predicted(self, message: Message) -> Array:
        """Return the predicted label of each test sample, from what the server sent."""
        return message.tensors["predictions"]

    def probabilities(self, outputs: Mapping[str, Array]) -> Array:
        """Return how probable each label is for samples, from what the server sent of them.

        Whoever overrides `predicted` and can be audited overrides this too.

        Parameters
        ----------
        outputs : mapping of str to array
            As the strategy's ``outputs_for`` names them, each of one row a sample.

        Returns
        -------
        array of float32, shape (n, labels)
        """
        return outputs["probabilities"]

    @action
    def audit(self, message: Message) -> Message:
        """Say what the model makes of every sample this client has: only where it is audited.

        Returns
        -------
        Message
            The tensors that `clients.audit.audited` names.

        Raises
        ------
        ValueError
            If this client was not told that the run is audited.
        """
        if not self.setting.audit:
            raise ValueError("outputs and labels of samples are said where audit=true, never else")
        answer = audited(self.whole, self.forgotten, message.tensors, self.probabilities)
        return Message("audit", tensors=answer)

    @action
    def score(self, message: Message) -> Message:
        """Compare the server's predictions with this client's test labels.

        Returns
        -------
        Message
            ``correct`` and ``samples``: counts by label, each a JSON list.
        """
        labels = self.holding.test_y.numpy()
        hits = labels[self.predicted(message) == labels]
        return Message(
            "score",
            {
                "correct": json.dumps(np.bincount(hits, minlength=self.num_labels).tolist()),
                "samples": json.dumps(np.bincount(labels, minlength=self.num_labels).tolist()),
            },
        )


def load_client(path: str) -> type[SplitClient]:
    """Return the client class that a strategy names.

    Raises
    ------
    UserError
        If the path does not import, or names something else.
    """
    named = load_object("client", path)
    if not (isinstance(named, type) and issubclass(named, SplitClient)):
        raise UserError(f"client={path!r} does not fit: a client is a subclass of SplitClient")
    return named
