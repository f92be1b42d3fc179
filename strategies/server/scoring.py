"""What the server makes of samples that clients upload to be scored; nothing is learned of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.part import Parts, ServerPart
from split_unlearning.transport.message import Array
from split_unlearning.unlearning.activation_cache import ActivationCache
from split_unlearning.unlearning.state_folder import TemporaryFolder

Scored = Literal["test", "audit"]
"""What clients upload to be scored: their test samples, or for an audit their training samples."""


class Scoring(ServerPart):
    """Holds what is to be scored, for the time of a run, and predicts it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._model = parts[ServerModel]
        self._folders: dict[Scored, TemporaryFolder] = {
            "test": TemporaryFolder(),
            "audit": TemporaryFolder(),
        }
        self._uploads = {split: ActivationCache(folder) for split, folder in self._folders.items()}

    def add(self, split: Scored, client: int, chunk: int, smashed: Array) -> None:
        """Take one chunk of a client's smashed data; the labels stay with the client."""
        tensor = self._model.checked(torch.tensor(smashed))
        nothing = torch.zeros(len(tensor), dtype=torch.int64)
        self._uploads[split].add(client, chunk, tensor, nothing, nothing.numpy())

    def outputs(self, client: int, split: Scored = "test") -> NDArray[np.float32]:
        """Return what the segment makes of each of a client's samples, as `ServerModel.outputs`."""
        return self._model.outputs(self._uploads[split].smashed(client))

    def predict(self, client: int) -> NDArray[np.int64]:
        """Return the predicted label of each of a client's test samples, in upload order."""
        predictions: NDArray[np.int64] = self.outputs(client).argmax(axis=1)
        return predictions

    def probabilities(self, client: int, split: Scored = "test") -> NDArray[np.float32]:
        """Return how probable each label is for each of a client's samples, shape (n, labels)."""
        logits = torch.from_numpy(self.outputs(client, split))
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return probabilities

    def epochs_to_relearn(
        self, forgotten: Mapping[int, tuple[Array, Array]], wanted: float, most: int
    ) -> int | None:
        """Return how many epochs a copy of the segment needs to learn forgotten samples again.

        Client segments stay as they are: it learns from what was uploaded for an audit. `forgotten`
        gives, by client, the places of its forgotten samples in that upload and their labels, each
        int64, shape (n,); otherwise as `server.relearning`.
        """
        audited = self._uploads["audit"]
        smashed = [audited.smashed(client)[rows] for client, (rows, _) in forgotten.items()]
        labels = [torch.from_numpy(labels) for _, labels in forgotten.values()]
        return self._model.epochs_to_relearn(torch.cat(smashed), torch.cat(labels), wanted, most)

    def close(self) -> None:
        """Delete what was uploaded to be scored."""
        for folder in self._folders.values():
            folder.close()
