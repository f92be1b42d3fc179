"""The base of every protocol's client: keeps a segment, leaves samples out, is scored."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from split_unlearning.clients.acting import ActingClient, action
from split_unlearning.clients.audit import audited
from split_unlearning.clients.forgotten import FORGOTTEN
from split_unlearning.clients.holding import Holding
from split_unlearning.clients.label_privacy.guarantee import Guarantee
from split_unlearning.clients.setting import Upload
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.options import Options
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

# Smashed data are computed in groups of this many samples, counted from the first, so that a
# chunk of an upload holds the same bits as the whole.
_GROUP = 64

# Names in the state: the segment, and the kept segment while the client trains again to verify it.
SEGMENT, KEPT = "segment", "kept"


class SplitClient(ActingClient):
    """Base of every protocol's client.

    `recalled` names the kept state that a client needs when it trains again for verification, and
    the name under which the state-dir has it; `modelled` names what `joined` needs of it.
    """

    recalled: ClassVar[Mapping[str, str]] = {FORGOTTEN: FORGOTTEN, KEPT: SEGMENT}
    modelled: ClassVar[tuple[str, ...]] = (SEGMENT,)

    @classmethod
    def guarantee(cls, options: Options, uploads: Mapping[int, int]) -> Guarantee | None:
        """Return what is guaranteed of all that clients have sent; None if nothing is.

        `uploads` says how many uploads of its training samples each client has made by now.
        """
        return None

    # The client segment.

    def fresh_segment(self, owner: int | str | None = None) -> nn.Module:
        """Return the client's part of the network, freshly initialised, on the device.

        Each owner has weights of its own; by default the owner is the client.
        """
        return self.fresh_part("client", owner).to(device())

    def segment_of(self, weights: Mapping[str, torch.Tensor]) -> nn.Module:
        """Return the client's part of the network, with these weights, on the device."""
        return self.part_with("client", weights).to(device())

    def kept_segment(self) -> nn.Module:
        """Return the client's part of the network as it was kept last."""
        return self.segment_of(self.kept_weights())

    def bottom(self, segment: nn.Module) -> nn.Module:
        """Return the part of a segment that turns samples into smashed data."""
        return segment

    def fresh_part(self, part: Part, owner: int | str | None = None) -> nn.Sequential:
        """Return a freshly initialised stretch of the network; owners as in `fresh_segment`."""
        owner = self.client if owner is None else owner
        seed = derive_seed(self.training.seed, f"{part}-segment", owner)
        return build_segment(part, *self._network, seed)

    def part_with(self, part: Part, weights: Mapping[str, torch.Tensor]) -> nn.Sequential:
        """Return a stretch of the network with these weights."""
        return segment_with(part, *self._network, weights)

    def kept_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights that were kept last, by name."""
        weights = self.state.load(SEGMENT)
        if weights is None:
            raise ValueError(f"client {self.client} has no segment yet")
        return weights

    @property
    def _network(self) -> tuple[Model, Shape, int]:
        return self.setting.model, self.input_shape, self.num_labels

    def keep_segment(self, segment: nn.Module) -> None:
        """Keep the client segment for later messages; the answer carries its digest."""
        self.keep_weights(segment.state_dict())

    def keep_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Keep the weights of the client segment, see `keep_segment`."""
        self.state.save(SEGMENT, weights)
        self.kept = digest(weights)

    @property
    def input_shape(self) -> Shape:
        """Channels, height and width of this client's images, or number of tokens of its texts."""
        return tuple(self.whole.x.shape[1:])

    @property
    def num_labels(self) -> int:
        """Number of labels of the data set, with those that this client does not hold."""
        return len(self.whole.class_names)

    # Forgetting, on the client's own data.

    def forget_samples(self, message: Message) -> Request:
        """Select the samples of the message's request, and leave them out from now on.

        A request that arrives again is not selected again: its share would be drawn from the
        samples that are left. The answer carries the number of samples.
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
        """Return the digest of the segment that was kept before training again to verify."""
        weights = self.state.load(KEPT)
        return Message("tell-kept", {"kept": digest(weights) if weights else ""})

    @action
    def commit(self, message: Message) -> Message:
        """Make an attempt's changes the state, and delete what they replaced."""
        if isinstance(self._store, StateFolder):
            self._store.commit(str(message.fields["commit"]))
        return Message("commit")

    @action
    def leave_out(self, message: Message) -> Message:
        """Remove the forgotten samples without training."""
        self.forget_samples(message)
        return Message("leave-out")

    def stage(self, message: Message) -> Stage:
        """Return the stage that a message names: learning, or a stage of the unlearning method.

        Raises
        ------
        ValueError
            If there is no stage of that name.
        """
        named, method = str(message.fields["stage"]), self.setting.method
        train = learning(self.training.server_epochs)
        if named == train.name or not isinstance(method, StagedMethod):
            return train
        return method.stage(named)

    def visit(
        self, stage: Stage, epoch: int, about: int, holding: Holding | None = None
    ) -> Iterator[tuple[torch.Tensor, Batch]]:
        """Yield the batches of one epoch (from 0) of a stage, in their seeded order, on the device.

        `about` is the number of the request whose samples are the forgotten ones. `holding`
        replaces the samples that the stage names.
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
        """Return the ids of this client's samples that a request, given by its number, meant."""
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

        `rows` gives the order in which samples are counted. The result is float32, shape (stop -
        start, ...), with the same bits whatever the borders.
        """
        first = start - start % _GROUP
        with torch.no_grad():
            groups = []
            for begin in range(first, max(stop, first + 1), _GROUP):
                group = slice(begin, begin + _GROUP)
                images = x[group] if rows is None else x[rows[group]]
                groups.append(segment(moved(images, device())).cpu())
        return torch.cat(groups)[start - first : stop - first]

    def to_upload(self, segment: nn.Module, split: str) -> Upload:
        """Return the data of a split for the server's cache: ``train``, ``test`` or ``audit``.

        An audit has every training sample, also forgotten ones, and with a backdoor the test
        samples with its trigger.
        """
        x = {"test": self.holding.test_x, "audit": self.whole.audited_x}.get(split, self.holding.x)
        known = {}
        if split == "train":
            known = {"labels": self.holding.y.numpy(), "ids": self.holding.ids}
        return Upload(len(x), partial(self.smashed, self.bottom(segment), x), known)

    def upload_chunk(self, segment: nn.Module, split: str, chunk: int) -> Message:
        """Return one chunk, counted from 0, of a split for the server's cache.

        The segment is frozen. Labels and ids go along with the training split only.
        """
        upload = self.to_upload(segment, split)
        row = self._packed(self.smashed(self.bottom(segment), blank(self.input_shape, 1), 0, 1))
        held = [*row.values(), *(known[:1] for known in upload.known.values())]
        sample_bytes = sum(array.nbytes for array in held)
        samples = max(1, int(self.setting.upload_chunk_mb * 1e6) // sample_bytes)
        start, stop = chunk * samples, min((chunk + 1) * samples, upload.samples)
        tensors = self._packed(upload.smashed(start, stop))
        tensors |= {name: known[start:stop] for name, known in upload.known.items()}
        chunks = max(1, -(-upload.samples // samples))
        return Message("upload", {"upload": split, "chunk": chunk, "chunks": chunks}, tensors)

    def _packed(self, smashed: torch.Tensor) -> dict[str, Array]:
        """Return smashed data in their form in a message."""
        return pack_arrays({"smashed": smashed.numpy()}, self.training.codec)

    @action
    def upload(self, message: Message) -> Message:
        """Send one chunk of the smashed data of a split."""
        return self.upload_chunk(
            self.kept_segment(), str(message.fields["upload"]), message.integer("chunk")
        )

    def predicted(self, message: Message) -> Array:
        """Return the predicted label of each test sample, from the server's outputs."""
        return message.tensors["predictions"]

    def probabilities(self, outputs: Mapping[str, Array]) -> Array:
        """Return the probability of each label: float32, shape (n, labels).

        The outputs of the server are those that the strategy's ``outputs_for`` names, with one row
        a sample. A subclass that overrides `predicted` and can be audited overrides this too.
        """
        return outputs["probabilities"]

    @action
    def audit(self, message: Message) -> Message:
        """Return the model's outputs on all samples of this client, see `clients.audit.audited`.

        Raises
        ------
        ValueError
            If the client's own settings have no audit.
        """
        if not self.setting.audit:
            raise ValueError("outputs and labels of samples are said where audit=true, never else")
        answer = audited(self.whole, self.forgotten, message.tensors, self.probabilities)
        return Message("audit", tensors=answer)

    @action
    def tell_model(self, message: Message) -> Message:
        """Return what this client's model needs of its state: ``<name in the state>/<tensor>``.

        Raises
        ------
        ValueError
            If the client's own settings keep no models.
        """
        if not self.setting.keep_models:
            raise ValueError("segments of clients are told where keep-models=true, never else")
        kept = {name: self.state.load(name) or {} for name in self.modelled}
        return Message(
            "tell-model",
            tensors={
                f"{name}/{key}": value.numpy() for name in kept for key, value in kept[name].items()
            },
        )

    def joined(self, server: nn.Module) -> nn.Module:
        """Return Concat(F^k, F^s): samples in, logits of real labels out, shape (n, labels).

        A subclass that overrides `predicted` overrides this too.
        """
        return nn.Sequential(OrderedDict(client=self.kept_segment(), server=server))

    @action
    def score(self, message: Message) -> Message:
        """Compare predictions with this client's test labels.

        Returns
        -------
        Message
            ``correct`` and ``samples``: counts by group of labels, each a JSON list.
        """
        labels = self.holding.test_y.numpy()
        hits = labels[self.predicted(message) == labels]
        group_of, groups = self.score_groups(message)

        def counts(scored: NDArray[np.int64]) -> str:
            return json.dumps(np.bincount(group_of[scored], minlength=groups).tolist())

        return Message("score", {"correct": counts(hits), "samples": counts(labels)})

    def score_groups(self, message: Message) -> tuple[NDArray[np.int64], int]:
        """Return the group that counts each label, and the number of groups: one a label."""
        return np.arange(self.num_labels), self.num_labels


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
