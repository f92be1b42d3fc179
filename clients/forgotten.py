"""The samples that a client has forgotten: salted hashes, by request."""

from __future__ import annotations

import numpy as np
import torch

from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.salted import among, new_salt, salted
from split_unlearning.unlearning.tensor_store import TensorStore

FORGOTTEN = "forgotten"
"""The name of the hashes in a client's state."""

_SALT = "salt"


class ForgottenSamples:
    """The samples that a client has forgotten, as its state records them."""

    def __init__(self, state: TensorStore) -> None:
        self._state = state
        self._known = state.load(FORGOTTEN) or {_SALT: new_salt()}

    def __contains__(self, request: int) -> bool:
        return str(request) in self._known

    def add(self, request: int, ids: Ids) -> None:
        """Record the samples of a request, given by its number."""
        self._known[str(request)] = salted(ids, self._known[_SALT])
        self._state.save(FORGOTTEN, self._known)

    def hashes(self, request: int) -> torch.Tensor:
        """Return the hashes of a request's samples, uint8, shape (n, 32); empty if unknown."""
        return self._known.get(str(request), torch.empty(0, 32, dtype=torch.uint8))

    def meant_by(self, request: int, ids: Ids) -> Ids:
        """Return those of some samples that a request meant."""
        return among(ids, self.hashes(request), self._known[_SALT])

    def request_of(self, ids: Ids) -> Ids:
        """Return, for each sample, the number of the request that forgot it, or -1."""
        numbers = np.full(len(ids), -1, dtype=np.int64)
        for known in self._known:
            if known != _SALT:
                numbers[np.isin(ids, self.meant_by(int(known), ids))] = int(known)
        return numbers

    def among(self, ids: Ids) -> Ids:
        """Return those of some samples that any request forgot."""
        hashes = [self._known[number] for number in self._known if number != _SALT]
        return among(ids, torch.cat(hashes), self._known[_SALT]) if hashes else ids[:0]
