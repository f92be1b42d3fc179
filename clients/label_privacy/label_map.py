"""Label expansion: each real label becomes several masked ones, and the server sees only those."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from split_unlearning.clients.label_privacy.secrets import numbers
from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Option

_ALLOWED = "a number of masked labels from 1 on, as '3', or a range of them, as '1-3'"


@dataclass(frozen=True)
class Expansion:
    """The number of masked labels of a real label, the paper's γ.

    If `low` and `high` differ, each label draws from the range, both ends included.

    Raises
    ------
    UserError
        If `low` is below 1 or above `high`.
    """

    own_options: ClassVar = {
        "expansion": Option(
            "3",
            "an integer >= 1, or a range such as 1-3",
            meaning="γ, masked labels a label becomes",
            mixed=True,
        )
    }

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise refuse("expansion", str(self), _ALLOWED)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    @classmethod
    def parse(cls, text: str) -> Expansion:
        """Read the run-config key ``expansion``.

        Raises
        ------
        UserError
            If the text is neither a number from 1 on nor a range of them.
        """
        read = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
        if read is None:
            raise refuse("expansion", text, _ALLOWED)
        low = int(read[1])
        return cls(low, int(read[2] or low))


@dataclass(frozen=True)
class LabelMap:
    """The masked labels of each real label: the paper's G_Y.

    Every client draws the same map with `drawn`; no message carries it. Real labels are sorted.
    Each label's masked ones are in a secret order, and all together are 0 .. E-1.
    """

    labels: tuple[int, ...]
    # Not printed, since a log or an error may reach the server.
    masked: tuple[tuple[int, ...], ...] = field(repr=False)

    @classmethod
    def drawn(cls, labels: tuple[int, ...], expansion: Expansion, secret: bytes) -> LabelMap:
        """Return the map that follows from the labels and secret of the clients' agreement alone.

        Raises
        ------
        ValueError
            If there is no label, or they are not sorted or not different.
        """
        if not labels or list(labels) != sorted(set(labels)):
            raise ValueError("the labels of a map are one or more, different and sorted")
        span = np.uint64(expansion.high - expansion.low + 1)
        draws = numbers(secret, np.array(labels, dtype=np.int64), "expansion")
        counts = expansion.low + (draws % span).astype(np.int64)
        ends = np.cumsum(counts)
        # Sorting by random numbers shuffles.
        places = numbers(secret, np.arange(ends[-1], dtype=np.int64), "label map")
        shuffled = np.argsort(places, kind="stable").tolist()
        return cls(
            tuple(labels),
            tuple(
                tuple(shuffled[end - count : end]) for count, end in zip(counts, ends, strict=True)
            ),
        )

    @property
    def num_masked(self) -> int:
        """The number of masked labels, the paper's E."""
        return sum(map(len, self.masked))

    @cached_property
    def real_of(self) -> NDArray[np.int64]:
        """The real label of each masked one: int64, shape (E,)."""
        real = np.empty(self.num_masked, dtype=np.int64)
        for label, masked in zip(self.labels, self.masked, strict=True):
            real[list(masked)] = label
        return real

    def masked_of(self, label: int) -> tuple[int, ...]:
        """Return the masked labels of a real label, in their secret order.

        Raises
        ------
        KeyError
            If the clients did not agree on this label.
        """
        return dict(zip(self.labels, self.masked, strict=True))[label]

    def check(self, labels: NDArray[np.int64]) -> None:
        """Refuse labels that the clients did not agree on.

        Raises
        ------
        UserError
            With their number. The line names none, since it reaches the server.
        """
        unknown = int((~np.isin(labels, self.labels)).sum())
        if unknown:
            raise UserError(
                f"labels of {unknown} samples are not among those that the clients agreed on; "
                "allowed: the labels of the consensus, which has to be reached anew"
            )

    def demask(self, probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the real label of each prediction.

        The probabilities of the masked labels of one real label are added up, and the largest sum
        wins; of equal sums the smaller label.

        The probabilities that the server predicts, not logits, have shape (n, E); the labels are
        int64, shape (n,).

        Returns
        -------
        array of int64, shape (n,)

        Raises
        ------
        ValueError
            If there is not one column for each masked label.
        """
        winners = self.sums(probabilities).argmax(axis=1)
        predicted: NDArray[np.int64] = np.array(self.labels, dtype=np.int64)[winners]
        return predicted

    def sums(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of each real label: the sum over its masked labels.

        Errors are those of `demask`.

        Returns
        -------
        array of float64, shape (n, len(labels))
        """
        if probabilities.ndim != 2 or probabilities.shape[1] != self.num_masked:
            raise ValueError(
                f"probabilities of shape {probabilities.shape} for {self.num_masked} masked labels"
            )
        wide = probabilities.astype(np.float64, copy=False)
        return np.stack([wide[:, sorted(masked)].sum(axis=1) for masked in self.masked], axis=1)
