"""The server's cache of smashed data: one shard a client, replaced or dropped as a whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from split_unlearning.foundations.errors import StateError
from split_unlearning.foundations.files import explained
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.unlearning.exactness import Ids, order
from split_unlearning.unlearning.state_folder import StateFolder, TemporaryFolder

# Sample ids of a client stay below this, so that client and id combine to one number.
_IDS_PER_CLIENT = 1 << 40

# Smashed data that is read at a time; at least a batch.
_AHEAD_BYTES = 1 << 24

# A safetensors file begins with the length of its header.
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class _Chunk:
    """One chunk of an upload: its size, and where each part begins in the chunk's file."""

    name: str
    samples: int
    shape: tuple[int, ...]
    smashed: int
    labels: int
    ids: int

    @property
    def row_bytes(self) -> int:
        """Bytes of the smashed data of one sample."""
        return 4 * math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of smashed data and labels."""
        return self.samples * (self.row_bytes + 8)


class ActivationCache:
    """Smashed data and labels of every client, kept so that no client has to send them again.

    SISA's shards are the clients (SplitWiper, Sec. 4.2.1), so a request replaces a client's whole
    shard. Everything lies in a folder, by default a temporary one, that holds nothing else; shards
    in it are taken up. Smashed data is read row by row on demand: memory does not grow with the
    cache. (With mapped files it would: a kernel maps up to 2 MB for one row, and soon the whole
    cache counts as this process's memory.)
    """

    def __init__(self, files: StateFolder | None = None) -> None:
        self._files = TemporaryFolder() if files is None else files
        self._shards: dict[int, list[_Chunk]] = {}
        names = [name for name in self._files if name.startswith("shard-")]
        for client, _, name in sorted((*_numbers(name), name) for name in names):
            self._shards.setdefault(client, []).append(self._chunk(name))

    def _chunk(self, name: str) -> _Chunk:
        """Read the header of a chunk's file."""
        path = self._files.path(name)
        with explained(path), path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
        samples, *shape = header["smashed"]["shape"]
        first = _LENGTH_BYTES + length
        begin = {part: first + header[part]["data_offsets"][0] for part in header}
        return _Chunk(name, samples, tuple(shape), begin["smashed"], begin["labels"], begin["ids"])

    def add(
        self, client: int, chunk: int, smashed: torch.Tensor, labels: torch.Tensor, ids: Ids
    ) -> None:
        """Take a chunk, counted from 0, of a client's upload; chunk 0 replaces the shard.

        Smashed data are float32, shape (n, ...); labels and ids are int64, shape (n,).

        Raises
        ------
        ValueError
            If a chunk is missing before this one, or the lengths differ.
        """
        before = 0 if chunk == 0 else len(self._shards.get(client, []))
        if chunk != before:
            raise ValueError(f"client {client} sent chunk {chunk} after {before} chunks")
        if not len(smashed) == len(labels) == len(ids):
            raise ValueError(
                f"client {client} sent {len(smashed)} activations, {len(labels)} labels and "
                f"{len(ids)} ids in one chunk"
            )
        if chunk == 0:
            self.drop(client)
        name = f"shard-{client}-{chunk}"
        # Copies, since safetensors refuses tensors that share memory.
        small = {"labels": labels.clone(), "ids": torch.tensor(ids)}
        self._files[name] = save({"smashed": smashed.contiguous(), **small})
        self._shards.setdefault(client, []).append(self._chunk(name))

    def drop(self, client: int) -> None:
        """Remove a client's shard, if there is one."""
        for chunk in self._shards.pop(client, []):
            del self._files[chunk.name]

    def clients(self) -> list[int]:
        """Return, in order, the clients whose shards hold a sample."""
        return sorted(
            c for c, shard in self._shards.items() if any(chunk.samples for chunk in shard)
        )

    @property
    def bytes(self) -> int:
        """Bytes of all smashed data and labels."""
        return sum(chunk.bytes for shard in self._shards.values() for chunk in shard)

    def smashed(self, client: int) -> torch.Tensor:
        """Return one client's smashed data, shape (n, ...)."""
        return CachedSamples(self, [(client, chunk) for chunk in self._shards[client]]).smashed()

    def samples(self, clients: Collection[int] | None = None) -> CachedSamples:
        """Return the samples of these clients, by default of all, client by client.

        A client without a shard adds nothing.

        Raises
        ------
        ValueError
            If the cache is empty.
        """
        if not self.clients():
            raise ValueError("the activation cache is empty: there is nothing to train on")
        wanted = self.clients() if clients is None else clients
        held = [(client, chunk) for client in self.clients() for chunk in self._shards[client]]
        return CachedSamples(self, [entry for entry in held if entry[0] in wanted])

    def read(self, chunk: _Chunk, parts: Sequence[tuple[int, np.ndarray[Any, Any]]]) -> None:
        """Read parts of a chunk's file: each from its offset in the file into an array of its size.

        Raises
        ------
        StateError
            If the file is shorter than it was.
        """
        path = self._files.path(chunk.name)
        with explained(path), path.open("rb", buffering=0) as file:
            for place, into in parts:
                if into.nbytes and os.preadv(file.fileno(), [into.data], place) != into.nbytes:
                    raise StateError(f"{path} was cut short while it was in use")


class CachedSamples:
    """Samples of the cache in a fixed order; smashed data is read on demand.

    `labels` are int64, shape (n,); `keys`, int64, shape (n,), has one number for each pair of
    client and sample id, for `epoch_order`.
    """

    def __init__(self, cache: ActivationCache, held: Sequence[tuple[int, _Chunk]]) -> None:
        self._cache = cache
        self._chunks = [chunk for _, chunk in held]
        self._ends = np.cumsum([chunk.samples for chunk in self._chunks], dtype=np.int64)
        total = int(self._ends[-1]) if held else 0
        labels, self.keys = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
        for (client, chunk), end in zip(held, self._ends.tolist(), strict=True):
            mine = slice(end - chunk.samples, end)
            cache.read(chunk, [(chunk.labels, labels[mine]), (chunk.ids, self.keys[mine])])
            self.keys[mine] += client * _IDS_PER_CLIENT
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def clients(self) -> Ids:
        """The client of each sample: int64, shape (n,)."""
        return self.keys // _IDS_PER_CLIENT

    def smashed(self, rows: torch.Tensor | None = None, pinned: bool = False) -> torch.Tensor:
        """Return smashed data in the order of `rows`, by default of all: float32, shape (m, ...).

        Rows are positions among these samples. A GPU copies from pinned memory by itself.
        """
        places = np.arange(len(self)) if rows is None else rows.numpy()
        smashed = torch.empty(len(places), *self._chunks[0].shape, pin_memory=pinned)
        taken = smashed.numpy()
        holders = np.searchsorted(self._ends, places, side="right")
        for holder in np.unique(holders).tolist():
            chunk = self._chunks[holder]
            first = int(self._ends[holder]) - chunk.samples
            mine = np.flatnonzero(holders == holder).tolist()
            self._cache.read(
                chunk,
                [
                    (chunk.smashed + (int(places[row]) - first) * chunk.row_bytes, taken[row])
                    for row in mine
                ],
            )
        return smashed

    def in_turn(
        self, rows: torch.Tensor, batches: Iterable[slice], pinned: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield smashed data and labels, batch by batch.

        A thread reads several batches at a time ahead of the work on them. Rows are positions among
        these samples in the order of the visits, batches are slices of `rows` from its beginning to
        its end.
        """
        ahead = max(1, _AHEAD_BYTES // self._chunks[0].row_bytes) if self._chunks else 1
        groups = list(_together(batches, ahead))
        with ThreadPoolExecutor(1) as reader:

            def begin(group: list[slice]) -> Future[torch.Tensor]:
                return reader.submit(self.smashed, rows[group[0].start : group[-1].stop], pinned)

            coming = begin(groups[0]) if groups else None
            for group, after in zip_longest(groups, groups[1:]):
                assert coming is not None
                read, coming = coming.result(), begin(after) if after else None
                start = group[0].start
                for batch in group:
                    smashed = read[batch.start - start : batch.stop - start]
                    yield smashed, self.labels[rows[batch]]


def _together(batches: Iterable[slice], samples: int) -> Iterator[list[slice]]:
    """Yield groups of neighbouring batches: at most this many samples, at least one batch."""
    group: list[slice] = []
    for batch in batches:
        if group and batch.stop - group[0].start > samples:
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def _numbers(name: str) -> tuple[int, int]:
    """Read the client and the number of a chunk from its file's name."""
    _, client, chunk = name.split("-")
    return int(client), int(chunk)


def epoch_order(keys: Ids, seed: int, stage: str, epoch: int) -> torch.Tensor:
    """Return the order in which the server visits cached samples in one epoch of a stage.

    Returns
    -------
    tensor of int64, shape (n,)
        Positions; the relative order of two samples never depends on a third.
    """
    return torch.from_numpy(order(keys, derive_seed(seed, "server-order", stage, epoch)))
