"""What a client keeps from one message to the next."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch

from transport.codec import decode, encode


class ClientState:
    """Tensors by name, of one client alone.

    A Flower client is rebuilt for every message, so what it must remember lies here. It is small on
    purpose (a client segment, not the activations): Flower carries it with every message.

    Parameters
    ----------
    store : mapping of str to bytes
        Where it is kept; Flower's ``context.state`` in a run, a dict in a test.
    """

    def __init__(self, store: MutableMapping[str, bytes]) -> None:
        self._store = store

    def save(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors under a name, instead of what it named before."""
        self._store[name] = encode({key: value.detach().cpu() for key, value in tensors.items()})

    def load(self, name: str) -> dict[str, torch.Tensor] | None:
        """Return the tensors of that name, None if there are none."""
        if name not in self._store:
            return None
        tensors, _ = decode(self._store[name])
        return tensors

    def forget(self, name: str) -> None:
        """Remove a name and its tensors."""
        self._store.pop(name, None)
