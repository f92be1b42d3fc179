"""The client of SplitWiper+ (the clients' lines of Algorithms 3 and 4)."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from split_unlearning.clients.acting import action
from split_unlearning.clients.label_privacy.consensus import Pool, visited
from split_unlearning.clients.label_privacy.copies import Assignment, assign
from split_unlearning.clients.label_privacy.guarantee import Guarantee
from split_unlearning.clients.label_privacy.label_map import LabelMap
from split_unlearning.clients.label_privacy.masking import mask
from split_unlearning.clients.label_privacy.sealing import (
    SECRET_BYTES,
    agreed_key,
    public_key,
    seal,
    unseal,
)
from split_unlearning.clients.label_privacy.secrets import derive_key, generator
from split_unlearning.clients.label_privacy.settings import LabelPrivacy
from split_unlearning.clients.setting import Upload
from split_unlearning.clients.splitwiper import SplitWiperClient
from split_unlearning.foundations.options import Options
from split_unlearning.models.joined import Unmasked
from split_unlearning.transport.message import Array, Message
from split_unlearning.unlearning.exactness import digest

# Names in the state: the client's secret; the agreement with the other clients; the last upload
# with its masked labels; and the upload to repeat while the client trains again to verify it.
_OWN, _AGREEMENT, _RELEASE, _REPEATED = "own-secret", "agreement", "release", "repeated"

_ASSIGNED = tuple(field.name for field in fields(Assignment))


class SplitWiperPlusClient(SplitWiperClient):
    """Uploads under masked labels, with noise; only the clients know what masked labels mean."""

    recalled: ClassVar[Mapping[str, str]] = {
        **SplitWiperClient.recalled,
        _OWN: _OWN,
        _AGREEMENT: _AGREEMENT,
        _REPEATED: _RELEASE,
    }

    modelled = (*SplitWiperClient.modelled, _AGREEMENT)

    own_options = LabelPrivacy.own_options

    @classmethod
    def check_options(cls, options: Options) -> None:
        """Refuse what `LabelPrivacy` does."""
        LabelPrivacy.of(options)

    @classmethod
    def guarantee(cls, options: Options, uploads: Mapping[int, int]) -> Guarantee | None:
        """Return what noise on smashed data guarantees."""
        return LabelPrivacy.of(options).guarantee(uploads)

    @cached_property
    def privacy(self) -> LabelPrivacy:
        """How labels and smashed data are hidden."""
        return LabelPrivacy.of(self.options)

    # Algorithm 3: label consensus.

    @action
    def offer_key(self, message: Message) -> Message:
        """Return the public key for sealing texts to this client, or the agreement."""
        if self._agreed_labels:
            return Message("offer-key", {"masked-labels": self.label_map.num_masked})
        return Message("offer-key", tensors={"key": _array(public_key(self._private_key))})

    @action
    def share_secret(self, message: Message) -> Message:
        """Make the clients' common secret, and seal it for each other client."""
        secret = derive_key(self.own_secret, "common-secret")
        self._keep_agreement(secret)
        sealed = [_array(seal(secret, self._key_with(key))) for key in message.tensors["keys"]]
        return Message("share-secret", tensors={"sealed": np.array(sealed, dtype=np.uint8)})

    @action
    def take_secret(self, message: Message) -> Message:
        """Open the clients' common secret."""
        key = self._key_with(message.tensors["key"])
        self._keep_agreement(unseal(message.tensors["sealed"].tobytes(), key))
        return Message("take-secret")

    @action
    def add_to_pool(self, message: Message) -> Message:
        """Add labels to the pool at random; the last client of a round says whether all are done.

        The other clients do not say so: nobody learns when a client is done.
        """
        place, places = message.integer("place"), message.integer("places")
        draws = generator(self.own_secret, "consensus", message.integer("round"))
        consensus = self.privacy.consensus
        pool = visited(self._opened(message), place, self._own_labels, consensus, draws)
        sealed = seal(pool.pack(self.num_labels, places), self._common_secret)
        answer = Message("add-to-pool", tensors={"pool": _array(sealed)})
        if place == places - 1:
            answer.fields["all-done"] = len(pool.done) == places
        return answer

    @action
    def agree(self, message: Message) -> Message:
        """Accept the pool's labels as all labels; return the number of masked labels."""
        self._keep_agreement(self._common_secret, self._opened(message).labels)
        return Message("agree", {"masked-labels": self.label_map.num_masked})

    def _opened(self, message: Message) -> Pool:
        sealed = message.tensors["pool"].tobytes()
        if not sealed:
            return Pool()
        text = unseal(sealed, self._common_secret)
        return Pool.unpack(text, self.num_labels, message.integer("places"))

    @property
    def _own_labels(self) -> set[int]:
        return set(self.holding.y.tolist())

    # Label expansion.

    @cached_property
    def label_map(self) -> LabelMap:
        """The meaning of masked labels, a function of the clients' agreement and their secret."""
        expansion = self.privacy.expansion
        return LabelMap.drawn(self._agreed_labels, expansion, self._common_secret)

    @action
    def reveal_map(self, message: Message) -> Message:
        """Return the label of each masked label, for scoring attacks only.

        Raises
        ------
        ValueError
            If the client's own settings have no attacks.
        """
        if not self.options["attacks"]:
            raise ValueError("what masked labels mean is said where attacks=true, and never else")
        return Message("reveal-map", tensors={"real-of": self.label_map.real_of})

    def joined(self, server: nn.Module) -> nn.Module:
        """Return the model behind the clipping of smashed data, with real labels at its end."""
        parts = OrderedDict[str, nn.Module](client=self.kept_segment())
        if self.privacy.mechanism is not None:
            parts["clipped"] = _Clipped(self.privacy)
        unmasked = Unmasked(self.label_map.real_of.tolist(), self.num_labels)
        return nn.Sequential(parts | OrderedDict(server=server, unmasked=unmasked))

    def predicted(self, message: Message) -> Array:
        """Return the label whose masked labels are most probable together (demasking)."""
        return self.label_map.demask(message.tensors["probabilities"].astype(np.float64))

    def probabilities(self, outputs: Mapping[str, Array]) -> Array:
        """Return the probability of each label: the sum over its masked labels."""
        masked = outputs["probabilities"].astype(np.float64)
        probabilities = np.zeros((len(masked), self.num_labels), dtype=np.float32)
        probabilities[:, list(self.label_map.labels)] = self.label_map.sums(masked)
        return probabilities

    def score_groups(self, message: Message) -> tuple[NDArray[np.int64], int]:
        """Return the group of each label, since counts by label would reveal the client's labels.

        The field ``groups``, in JSON, lists the labels of each group but the last, which has all
        other labels.
        """
        groups = json.loads(str(message.fields["groups"]))
        group_of = np.full(self.num_labels, len(groups))
        for number, group in enumerate(groups):
            group_of[group] = number
        return group_of, len(groups) + 1

    # Algorithm 4: masking.

    def upload_chunk(self, segment: nn.Module, split: str, chunk: int) -> Message:
        """Return one chunk for the server's cache; each upload of training data is a release."""
        if split == "train" and chunk == 0:
            self._begin_release(segment)
        answer = super().upload_chunk(segment, split, chunk)
        if split == "train":
            answer.fields["releases"] = int(self._release["number"]) + 1
        return answer

    def to_upload(self, segment: nn.Module, split: str) -> Upload:
        """Return the data of a split for the server's cache, training data masked."""
        privacy = self.privacy
        bottom = self.bottom(segment)
        if split != "train":
            plain = super().to_upload(segment, split)
            return replace(plain, smashed=lambda *part: privacy.clipped(plain.smashed(*part)))
        settled = self._release
        number, secret = int(settled["number"]), self._secret_of(segment)
        rows = settled["rows"]

        def masked(start: int, stop: int) -> torch.Tensor:
            records = self.smashed(bottom, self.holding.x, start, stop, rows).numpy()
            if not len(records):
                return torch.from_numpy(records)
            part = {name: settled[name][start:stop].numpy() for name in _ASSIGNED}
            # Positions among the records of this part.
            part["rows"] = np.arange(len(records))
            released = Assignment(**part)
            return torch.from_numpy(
                mask(records, released, privacy.mechanism, secret, number, 0, len(records))
            )

        known = {"labels": settled["masked"].numpy(), "ids": settled["pseudonyms"].numpy()}
        return Upload(len(rows), masked, known)

    def _begin_release(self, segment: nn.Module) -> None:
        """Assign masked labels to records for a new upload, or again for a repeated upload."""
        privacy = self.privacy
        repeated, last = self.state.load(_REPEATED), self.state.load(_RELEASE)
        number = int(last["number"]) + 1 if last else 0
        if repeated:
            number = int(repeated["number"])
        plain = super().to_upload(segment, "train")
        looked_at = None
        if privacy.copies == "modes":
            looked_at = privacy.clipped(plain.smashed(0, plain.samples)).numpy()
        assignment = assign(
            privacy.copies,
            looked_at,
            self.holding.y.numpy(),
            self.holding.ids,
            self.label_map,
            self._secret_of(segment),
            number,
        )
        settled = {name: torch.from_numpy(getattr(assignment, name)) for name in _ASSIGNED}
        self.state.save(_RELEASE, {"number": torch.tensor(number), **settled})

    @property
    def _release(self) -> dict[str, torch.Tensor]:
        """The assignment that `_begin_release` made."""
        return self.state.load(_RELEASE) or {}

    def _secret_of(self, segment: nn.Module) -> bytes:
        """Return the secret from which everything that hides an upload is drawn.

        Each segment has a secret of its own: an upload that is repeated after a failed attempt must
        not cover other smashed data with the same noise.
        """
        return derive_key(self.own_secret, "upload", digest(segment.state_dict()))

    # Secrets.

    @cached_property
    def own_secret(self) -> bytes:
        """A secret of `SECRET_BYTES` that only this client knows."""
        if self.privacy.secrets == "seed":
            return derive_key(b"a seed protects nothing", self.training.seed, self.client)
        kept = self.state.load(_OWN)
        if kept is None:
            kept = {"secret": _tensor(os.urandom(SECRET_BYTES))}
            self.state.save(_OWN, kept)
        return _bytes(kept["secret"])

    @property
    def _private_key(self) -> bytes:
        return derive_key(self.own_secret, "private-key")

    def _key_with(self, public: Array) -> bytes:
        return agreed_key(self._private_key, public.tobytes())

    @property
    def _common_secret(self) -> bytes:
        return _bytes((self.state.load(_AGREEMENT) or {})["secret"])

    @property
    def _agreed_labels(self) -> tuple[int, ...]:
        kept = self.state.load(_AGREEMENT)
        return tuple(kept["labels"].tolist()) if kept else ()

    def _keep_agreement(self, secret: bytes, labels: Collection[int] = ()) -> None:
        """Keep the clients' common secret, and the labels once the clients agree on them."""
        kept = {
            "secret": _tensor(secret),
            "labels": torch.tensor(sorted(labels), dtype=torch.int64),
        }
        self.state.save(_AGREEMENT, kept)


class _Clipped(nn.Module):
    """Smashed data as the mechanism clips it; no gradient passes."""

    def __init__(self, privacy: LabelPrivacy) -> None:
        super().__init__()
        self.privacy = privacy

    def forward(self, smashed: torch.Tensor) -> torch.Tensor:
        return self.privacy.clipped(smashed.detach().cpu()).to(smashed.device)


def _array(text: bytes) -> Array:
    return np.frombuffer(text, dtype=np.uint8)


def _tensor(text: bytes) -> torch.Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)


def _bytes(kept: torch.Tensor) -> bytes:
    return kept.numpy().tobytes()
