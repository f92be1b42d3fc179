"""The cache of gradients: every step of training as it was applied, so that it can be taken apart.

The server keeps one of its own steps, each client one of its own; no gradient leaves the side that
computed it. Which samples were in a batch is known to the cache of their client alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from models.errors import UserError
from unlearning.exactness import Ids
from unlearning.tensor_store import TensorStore

Gradients = dict[str, torch.Tensor]
"""One tensor for each parameter of a segment, by the parameter's name."""

Codec = Literal["float32", "float16", "int8"]
"""How a gradient is kept: as it is, in half precision, or as 8-bit multiples of a step that each
tensor has of its own."""

CODECS: tuple[str, ...] = get_args(Codec)

_STEPS, _GRADIENTS, _WEIGHTS = "gradient-steps-", "gradients-", "gradient-weights-"
_SHIFTS = "gradient-shifts-"

# What lies in one piece, at least one step: it is read and written whole.
_PIECE_BYTES = 1 << 24
_PIECES_IN_MEMORY = 2

_LARGEST_INT8 = 127


@dataclass(frozen=True)
class Step:
    """One step of training.

    Parameters
    ----------
    number : int
        t, from 0, among all steps of the training, whoever took them.
    client : int
        Whose batch it was.
    batch_size : int
        Samples in the batch.
    learning_rate : float
        Of the step.
    ids : array of int64
        The samples of the batch; empty where they are not known.
    stage : int
        Which of the trainings in a row it belongs to: with each, momentum begins anew.
    removed : int
        How many samples of the batch were forgotten since. Nothing of them is in the gradient, or
        in `ids`; the gradient is still a part of the mean over `batch_size`.
    """

    number: int
    client: int
    batch_size: int
    learning_rate: float
    ids: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    stage: int = 0
    removed: int = 0

    @property
    def samples(self) -> int:
        """How many samples the gradient is of."""
        return self.batch_size - self.removed


class GradientCache:
    """The steps of one training, in order, and the gradient of each, or of every s-th.

    Parameters
    ----------
    files : mapping of str to bytes
        Where it lies: a folder, Flower's context, a dict. What is there is taken up; other names
        in it are left alone.
    run : str
        Names the training; a cache of another one is refused.
    codec : "float32", "float16" or "int8"
        How gradients are kept. An 8-bit value is off by at most half of 1/127 of the largest of its
        tensor.
    every : int
        Gradients are kept of steps 0, s, 2s and so on; the other steps are known without.

    Raises
    ------
    UserError
        If what is there was kept by another training.
    """

    def __init__(
        self,
        files: MutableMapping[str, bytes],
        run: str,
        codec: Codec = "float32",
        every: int = 1,
    ) -> None:
        self._files, self._kept = files, TensorStore(files)
        self._run, self._codec, self._every = run, codec, every
        self._steps: list[Step] = []
        self._flushed = 0
        self._pending: list[Gradients] = []
        self._pending_bytes = 0
        self._starts: list[int] = []
        self._sizes: dict[str, int] = {}
        self._pieces: OrderedDict[int, dict[str, torch.Tensor]] = OrderedDict()
        self._replaced: dict[int, Gradients] = {}
        self._shifts: dict[int, dict[str, float]] = {}
        for first in self._numbers(_STEPS):
            self._steps += _unpacked(self._load(_STEPS, first), run)
            self._starts.append(first)
            self._shifts |= _unshifted(self._kept.load(f"{_SHIFTS}{first}") or {})
        self._flushed = len(self._steps)

    # Writing.

    def add(self, step: Step, gradients: Mapping[str, torch.Tensor]) -> None:
        """Keep one step.

        Parameters
        ----------
        step : Step
            Later than all that are kept.
        gradients : mapping of str to tensor of float32
            As they were applied: with weight decay, before momentum.

        Raises
        ------
        ValueError
            If the step is not later, or a gradient cannot be kept: it is not finite, or too large
            for the codec.
        """
        if self._steps and step.number <= self._steps[-1].number:
            raise ValueError(
                f"step {step.number} comes after step {self._steps[-1].number} in a gradient cache"
            )
        self._steps.append(step)
        if step.number % self._every == 0:
            encoded = _encoded(gradients, self._codec)
            if not all(one.isfinite().all() for one in encoded.values()):
                raise ValueError(
                    f"the gradient of step {step.number} cannot be kept as {self._codec}: a value "
                    "is not finite, or too large for it"
                )
            self._pending.append(encoded)
            self._pending_bytes += _size(encoded)
        if self._pending_bytes >= _PIECE_BYTES:
            self.flush()

    def keep_weights(
        self,
        number: int,
        weights: Mapping[str, torch.Tensor],
        momentum: Mapping[str, torch.Tensor],
    ) -> None:
        """Keep the weights before a step, and the optimiser's momentum, to rebuild others from."""
        parts = {"weights": weights, "momentum": momentum}
        named = {f"{part}/{name}": parts[part][name] for part in parts for name in parts[part]}
        self._save(f"{_WEIGHTS}{number}", named)

    def flush(self) -> None:
        """Write what was added or replaced and is not written yet."""
        self._write_replaced()
        new = self._steps[self._flushed :]
        if not new:
            return
        first = new[0].number
        self._save(f"{_STEPS}{first}", _packed(new, self._run))
        if self._pending:
            stacked = {
                name: torch.stack([one[name] for one in self._pending]) for name in self._pending[0]
            }
            self._save(f"{_GRADIENTS}{first}", stacked)
        self._starts.append(first)
        self._flushed, self._pending, self._pending_bytes = len(self._steps), [], 0

    # Rewriting.

    def replace(self, number: int, gradients: Mapping[str, torch.Tensor]) -> None:
        """Keep another gradient of a step whose gradient is kept, instead of the one that was.

        Raises
        ------
        KeyError
            If the gradient of that step is not kept.
        """
        piece = self._piece(self._place(number))
        _row(piece, number)
        if self._replaced and self._place(next(iter(self._replaced))) != self._place(number):
            self._write_replaced()
        self._replaced[number] = _encoded(gradients, self._codec)

    def describe(self, steps: Mapping[int, Step], shifts: Mapping[int, dict[str, float]]) -> None:
        """Say anew what is known of some steps.

        Parameters
        ----------
        steps : mapping of int to Step
            By number, instead of what was known.
        shifts : mapping of int to dict
            By number, see `shifts`; instead of what was there.
        """
        self.flush()
        self._steps = [steps.get(step.number, step) for step in self._steps]
        self._shifts |= shifts
        touched = {self._place(number) for number in (*steps, *shifts)}
        for first in sorted(touched):
            here = [step for step in self._steps if self._place(step.number) == first]
            self._save(f"{_STEPS}{first}", _packed(here, self._run))
            shifted = {
                step.number: self._shifts[step.number]
                for step in here
                if step.number in self._shifts
            }
            if shifted:
                self._save(f"{_SHIFTS}{first}", _shifted(shifted))
            self._pieces.pop(first, None)

    def forget_weights(self) -> None:
        """Remove all weights that are kept."""
        for number in self._numbers(_WEIGHTS):
            self._kept.forget(f"{_WEIGHTS}{number}")
            self._sizes.pop(f"{_WEIGHTS}{number}", None)

    def _write_replaced(self) -> None:
        """Write the piece whose gradients were replaced."""
        replaced, self._replaced = self._replaced, {}
        by_piece: dict[int, list[int]] = {}
        for number in replaced:
            by_piece.setdefault(self._place(number), []).append(number)
        for first, numbers in by_piece.items():
            piece = {name: tensor.clone() for name, tensor in self._piece(first).items()}
            for number in numbers:
                row = _row(piece, number)
                for name, tensor in replaced[number].items():
                    piece[name][row] = tensor
            del piece["numbers"]
            self._save(f"{_GRADIENTS}{first}", piece)
            self._pieces.pop(first, None)

    def clear(self) -> None:
        """Remove everything."""
        for prefix in (_STEPS, _GRADIENTS, _WEIGHTS, _SHIFTS):
            for number in self._numbers(prefix):
                self._kept.forget(f"{prefix}{number}")
        self._steps, self._starts, self._flushed = [], [], 0
        self._pending, self._pending_bytes = [], 0
        self._replaced, self._shifts = {}, {}
        self._sizes.clear()
        self._pieces.clear()

    # Reading.

    @property
    def steps(self) -> list[Step]:
        """All steps, in order, also those whose gradient is not kept."""
        return list(self._steps)

    def holds(self, number: int) -> bool:
        """Say whether the gradient of a step of this cache is kept."""
        return number % self._every == 0

    @property
    def bytes(self) -> int:
        """Size of everything that is kept, in bytes, but for the headers of files."""
        self.flush()
        prefixes = (_STEPS, _GRADIENTS, _WEIGHTS, _SHIFTS)
        names = [one for one in self._files if one.startswith(prefixes)]
        self._sizes |= {one: self._kept.bytes(one) for one in names if one not in self._sizes}
        return sum(self._sizes[one] for one in names)

    def gradients(self, number: int) -> Gradients:
        """Return the gradients of a step whose gradients are kept, float32, on the CPU.

        Raises
        ------
        KeyError
            If they are not.
        """
        if number in self._replaced:
            return _decoded(self._replaced[number])
        if self._flushed < len(self._steps):
            self.flush()
        if not self.holds(number):
            raise KeyError(f"the gradient of step {number} is not kept")
        piece = self._piece(self._place(number))
        row = _row(piece, number)
        return _decoded({name: piece[name][row] for name in piece if name != "numbers"})

    def shifts(self, number: int) -> dict[str, float]:
        """Return what else a rewritten step moves each parameter by, as multiples of its gradient.

        At once, and not through the momentum. Empty for a step as it was learned.
        """
        return self._shifts.get(number, {})

    def weights_before(self, number: int) -> tuple[int, Gradients, Gradients]:
        """Return the last weights that are kept of before a step.

        Returns
        -------
        int
            Before which step they were, at most `number`.
        dict, dict
            The weights, and the momentum; the latter empty where there was none.

        Raises
        ------
        KeyError
            If there are none.
        """
        before = [one for one in self._numbers(_WEIGHTS) if one <= number]
        if not before:
            raise KeyError(f"no weights are kept of before step {number}")
        kept = self._load(_WEIGHTS, before[-1])
        parts: dict[str, Gradients] = {"weights": {}, "momentum": {}}
        for name, tensor in kept.items():
            part, _, parameter = name.partition("/")
            parts[part][parameter] = tensor
        return before[-1], parts["weights"], parts["momentum"]

    def has_weights_before(self, number: int) -> bool:
        """Say whether the weights of just before a step are kept."""
        return f"{_WEIGHTS}{number}" in self._files

    def _place(self, number: int) -> int:
        """Return the first step of the piece that a step lies in."""
        place = bisect_right(self._starts, number) - 1
        if place < 0:
            raise KeyError(f"the gradient of step {number} is not kept")
        return self._starts[place]

    def _piece(self, first: int) -> dict[str, torch.Tensor]:
        """Return the piece that begins with a step; the last ones read are at hand."""
        if first not in self._pieces:
            steps = _unpacked(self._load(_STEPS, first), self._run)
            numbers = [step.number for step in steps if self.holds(step.number)]
            stacked = self._kept.mapped(f"{_GRADIENTS}{first}") if numbers else {}
            self._pieces[first] = {"numbers": torch.tensor(numbers, dtype=torch.int64), **stacked}
            while len(self._pieces) > _PIECES_IN_MEMORY:
                self._pieces.popitem(last=False)
        return self._pieces[first]

    def _save(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        self._kept.save(name, tensors)
        self._sizes[name] = _size(tensors)

    def _numbers(self, prefix: str) -> list[int]:
        """Return the numbers of what is kept under a prefix, rising."""
        named = [name for name in self._files if name.startswith(prefix)]
        return sorted(int(name.removeprefix(prefix)) for name in named)

    def _load(self, prefix: str, number: int) -> dict[str, torch.Tensor]:
        loaded = self._kept.load(f"{prefix}{number}")
        if loaded is None:
            raise KeyError(f"the gradient cache has no {prefix}{number}")
        return loaded


class Recorder:
    """Puts every step that an optimiser is about to take into a cache.

    It sees what the optimiser sees, and changes nothing of it: training gives the same bits.

    Parameters
    ----------
    cache : GradientCache
        Where to.
    segment : nn.Module
        Whose parameters are stepped.
    optimiser : torch.optim.SGD
        By what.
    first : int
        The number of the next step.
    weights_every : int
        How often the weights are kept on the way, in steps; 0 for those before the first alone.
    stage : int
        Which of the trainings in a row it is, see `Step`.
    """

    def __init__(
        self,
        cache: GradientCache,
        segment: nn.Module,
        optimiser: torch.optim.SGD,
        first: int,
        weights_every: int = 0,
        stage: int = 0,
    ) -> None:
        self._cache, self._segment, self._stage = cache, segment, stage
        self._number, self._first, self._weights_every = first, first, weights_every
        self._batch: tuple[int, int, Ids] | None = None
        optimiser.register_step_pre_hook(self._record)

    def announce(self, client: int, batch_size: int, ids: Ids | None = None) -> None:
        """Say whose batch the next step is about; its samples if they are known."""
        known = np.empty(0, dtype=np.int64) if ids is None else ids
        self._batch = (client, batch_size, known)

    def _record(self, optimiser: torch.optim.Optimizer, *_: Any) -> None:
        assert self._batch is not None, "a step that nobody announced"
        client, batch_size, ids = self._batch
        group = optimiser.param_groups[0]
        named = dict(self._segment.named_parameters())
        passed = self._number - self._first
        if passed == 0 or (self._weights_every and passed % self._weights_every == 0):
            buffers = {
                name: optimiser.state[parameter].get("momentum_buffer")
                for name, parameter in named.items()
                if parameter in optimiser.state
            }
            momentum = {name: one for name, one in buffers.items() if one is not None}
            weights = {name: parameter.detach() for name, parameter in named.items()}
            self._cache.keep_weights(self._number, weights, momentum)
        applied = {}
        for name, parameter in named.items():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if group["weight_decay"]:
                gradient = gradient.add(parameter.detach(), alpha=group["weight_decay"])
            applied[name] = gradient.detach()
        step = Step(self._number, client, batch_size, group["lr"], ids, self._stage)
        self._cache.add(step, applied)
        self._number, self._batch = self._number + 1, None


def _encoded(gradients: Mapping[str, torch.Tensor], codec: Codec) -> dict[str, torch.Tensor]:
    """Return the tensors of one step as they are kept; copies."""
    encoded = {}
    for name, gradient in gradients.items():
        values = gradient.detach().cpu()
        if codec == "int8":
            scale = values.abs().max() / _LARGEST_INT8 if values.numel() else torch.tensor(0.0)
            # All zero, or so small that the step is: nothing is left of it.
            steps = (values / scale).round() if scale > 0 else torch.zeros_like(values)
            encoded[f"scale/{name}"] = scale
            encoded[f"int8/{name}"] = steps.clamp(-_LARGEST_INT8, _LARGEST_INT8).to(torch.int8)
        else:
            kept = torch.float16 if codec == "float16" else torch.float32
            encoded[f"value/{name}"] = values.to(kept, copy=True)
    return encoded


def _decoded(encoded: Mapping[str, torch.Tensor]) -> Gradients:
    """Return what `_encoded` wrote, as float32 and copies."""
    gradients = {}
    for key, tensor in encoded.items():
        kind, _, name = key.partition("/")
        if kind == "value":
            gradients[name] = tensor.to(torch.float32, copy=True)
        elif kind == "int8":
            gradients[name] = tensor.to(torch.float32) * encoded[f"scale/{name}"]
    return gradients


def _packed(steps: list[Step], run: str) -> dict[str, torch.Tensor]:
    """Return what is known of some steps, and of which training they are, as tensors."""
    return {
        "run": torch.tensor(list(run.encode()), dtype=torch.uint8),
        "numbers": torch.tensor([step.number for step in steps]),
        "clients": torch.tensor([step.client for step in steps]),
        "batch-sizes": torch.tensor([step.batch_size for step in steps]),
        "learning-rates": torch.tensor([step.learning_rate for step in steps], dtype=torch.float64),
        "known": torch.tensor([len(step.ids) for step in steps]),
        "ids": torch.from_numpy(np.concatenate([step.ids for step in steps])),
        "stages": torch.tensor([step.stage for step in steps]),
        "removed": torch.tensor([step.removed for step in steps]),
    }


def _unpacked(kept: Mapping[str, torch.Tensor], run: str) -> list[Step]:
    """Read what `_packed` wrote.

    Raises
    ------
    UserError
        If the steps are of another training.
    """
    written = bytes(kept["run"].tolist()).decode(errors="replace")
    if written != run:
        raise UserError(
            f"the gradient cache is of another run ({written!r}, not {run!r}); allowed: that of "
            "the training that is to forget"
        )
    ids = np.split(kept["ids"].numpy(), np.cumsum(kept["known"].numpy())[:-1])
    columns = ("numbers", "clients", "batch-sizes", "learning-rates")
    since = (kept[name].tolist() for name in ("stages", "removed"))
    rows = zip(*(kept[name].tolist() for name in columns), ids, *since, strict=True)
    return [Step(*row) for row in rows]


def _shifted(shifts: Mapping[int, Mapping[str, float]]) -> dict[str, torch.Tensor]:
    """Return the shifts of some steps as tensors, one row a step."""
    names = list(next(iter(shifts.values())))
    columns = {
        f"shift/{name}": torch.tensor([one[name] for one in shifts.values()], dtype=torch.float64)
        for name in names
    }
    return {"numbers": torch.tensor(list(shifts)), **columns}


def _unshifted(kept: Mapping[str, torch.Tensor]) -> dict[int, dict[str, float]]:
    """Read what `_shifted` wrote."""
    columns = {key.removeprefix("shift/"): kept[key].tolist() for key in kept if key != "numbers"}
    numbers = kept["numbers"].tolist() if kept else []
    return {
        number: {name: column[row] for name, column in columns.items()}
        for row, number in enumerate(numbers)
    }


def _row(piece: Mapping[str, torch.Tensor], number: int) -> int:
    """Return where in a piece the gradient of a step lies."""
    row = int(np.searchsorted(piece["numbers"].numpy(), number))
    if row == len(piece["numbers"]) or int(piece["numbers"][row]) != number:
        raise KeyError(f"the gradient of step {number} is not kept")
    return row


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
