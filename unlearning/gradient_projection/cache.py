"""The cache of gradients: every step of training as it was applied, so that it can be taken apart.

The server keeps one of its own steps, each client one of its own; no gradient leaves the side that
computed it. Which samples were in a batch is known to the cache of their client alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping

import numpy as np
import torch

from split_unlearning.unlearning.gradient_projection.codec import Codec, Gradients, decode, encode
from split_unlearning.unlearning.gradient_projection.steps import (
    Step,
    pack,
    pack_shifts,
    unpack,
    unpack_shifts,
)
from split_unlearning.unlearning.tensor_store import TensorStore

_STEPS, _GRADIENTS, _WEIGHTS = "gradient-steps-", "gradients-", "gradient-weights-"
_SHIFTS = "gradient-shifts-"

# What lies in one piece, at least one step: it is read and written whole.
_PIECE_BYTES = 1 << 24
_PIECES_IN_MEMORY = 2


class GradientCache:
    """The steps of one training, in order, and the gradient of each, or of every s-th.

    `files` is where it lies: a folder, Flower's context, a dict. What is there is taken up; other
    names in it are left alone. `run` names the training. Gradients are kept of steps 0, s, 2s and
    so on, with s = `every`; the other steps are known without.

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
            self._steps += unpack(self._load(_STEPS, first), run)
            self._starts.append(first)
            self._shifts |= unpack_shifts(self._kept.load(f"{_SHIFTS}{first}") or {})
        self._flushed = len(self._steps)

    # Writing.

    def add(self, step: Step, gradients: Mapping[str, torch.Tensor]) -> None:
        """Keep one step, later than all that are kept, and its gradients, float32.

        They are as they were applied: with weight decay, before momentum.

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
            encoded = encode(gradients, self._codec)
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
        self._save(f"{_STEPS}{first}", pack(new, self._run))
        if self._pending:
            stacked = {
                name: torch.stack([one[name] for one in self._pending]) for name in self._pending[0]
            }
            self._save(f"{_GRADIENTS}{first}", stacked)
        self._starts.append(first)
        self._flushed, self._pending, self._pending_bytes = len(self._steps), [], 0

    # Rewriting.

    def replace(self, number: int, gradients: Mapping[str, torch.Tensor]) -> None:
        """Keep another gradient of a step; raise KeyError if none of it is kept."""
        piece = self._piece(self._place(number))
        _row(piece, number)
        if self._replaced and self._place(next(iter(self._replaced))) != self._place(number):
            self._write_replaced()
        self._replaced[number] = encode(gradients, self._codec)

    def describe(self, steps: Mapping[int, Step], shifts: Mapping[int, dict[str, float]]) -> None:
        """Say anew what is known of some steps, and their shifts, see `shifts`; both by number."""
        self.flush()
        self._steps = [steps.get(step.number, step) for step in self._steps]
        self._shifts |= shifts
        touched = {self._place(number) for number in (*steps, *shifts)}
        for first in sorted(touched):
            here = [step for step in self._steps if self._place(step.number) == first]
            self._save(f"{_STEPS}{first}", pack(here, self._run))
            shifted = {
                step.number: self._shifts[step.number]
                for step in here
                if step.number in self._shifts
            }
            if shifted:
                self._save(f"{_SHIFTS}{first}", pack_shifts(shifted))
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
        """Return the gradients of a step, float32, on the CPU; raise KeyError if they are not kept.

        Not to be written to: they may be the file itself, mapped.
        """
        if number in self._replaced:
            return decode(self._replaced[number])
        if self._flushed < len(self._steps):
            self.flush()
        if not self.holds(number):
            raise KeyError(f"the gradient of step {number} is not kept")
        piece = self._piece(self._place(number))
        row = _row(piece, number)
        return decode({name: piece[name][row] for name in piece if name != "numbers"})

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
            # Read from disk while this piece is worked on.
            following = bisect_right(self._starts, first)
            if following < len(self._starts):
                self._kept.expect(f"{_GRADIENTS}{self._starts[following]}")
            steps = unpack(self._load(_STEPS, first), self._run)
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


def _row(piece: Mapping[str, torch.Tensor], number: int) -> int:
    """Return where in a piece the gradient of a step lies."""
    row = int(np.searchsorted(piece["numbers"].numpy(), number))
    if row == len(piece["numbers"]) or int(piece["numbers"][row]) != number:
        raise KeyError(f"the gradient of step {number} is not kept")
    return row


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
