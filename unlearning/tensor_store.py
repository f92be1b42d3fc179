"""Tensors by name, in any store of bytes."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch
from safetensors.torch import load, load_file, save

from split_unlearning.unlearning.state_folder import StateFolder


class TensorStore:
    """Groups of tensors by name, each as safetensors bytes.

    A Flower client is rebuilt for every message, so its memory lies in such a store; so does what
    the server keeps from one run to the next. The bytes are kept in a folder, Flower's context or a
    dict.
    """

    def __init__(self, store: MutableMapping[str, bytes]) -> None:
        self._store = store

    def save(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors under a name, replacing what it named before."""
        # Copies, since safetensors refuses tensors that share memory.
        own = {key: _own(value) for key, value in tensors.items()}
        self._store[name] = save(own)

    def load(self, name: str) -> dict[str, torch.Tensor] | None:
        """Return the tensors of a name, None if there are none."""
        return load(self._store[name]) if name in self._store else None

    def mapped(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a name, read-only and read lazily from a folder's file.

        Any other store is read at once.

        Raises
        ------
        KeyError
            If there is no such name.
        """
        if isinstance(self._store, StateFolder):
            return load_file(self._store.path(name))
        return load(self._store[name])

    def expect(self, name: str) -> None:
        """Read a folder's file ahead, if there is such a name: it is needed next."""
        if isinstance(self._store, StateFolder) and name in self._store:
            self._store.expect(name)

    def bytes(self, name: str) -> int:
        """Return the size of a name's tensors in bytes, without reading a folder's file."""
        if isinstance(self._store, StateFolder):
            return self._store.bytes_of(name)
        return len(self._store[name])

    def forget(self, name: str) -> None:
        """Remove a name and its tensors, if it exists."""
        if name in self._store:
            del self._store[name]


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
