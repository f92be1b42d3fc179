"""The samples that one client holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.unlearning.exactness import Ids


@dataclass(frozen=True)
class Holding:
    """The samples one client holds.

    Parameters
    ----------
    ids : array of int64, shape (n,)
        Ids of its training samples, sorted.
    x, y : tensor, images of float32, shape (n, channels, height, width), or token ids of int64,
        shape (n, length); tensor of int64, shape (n,)
        Its training samples.
    test_ids, test_x, test_y : array, tensor, tensor
        Its test split, in the same form.
    class_names : tuple of str
        Every label of the data set.
    named_y : tensor of int64, shape (n,), optional
        The labels that requests name training samples by, where a backdoor gave some another one
        to learn; by default `y`.
    triggered_x : tensor, optional
        The test images with the trigger of that backdoor; by default there are none.
    """

    ids: Ids
    x: torch.Tensor
    y: torch.Tensor
    test_ids: Ids
    test_x: torch.Tensor
    test_y: torch.Tensor
    class_names: tuple[str, ...]
    named_y: torch.Tensor | None = None
    triggered_x: torch.Tensor | None = None

    def without(self, forgotten: Ids) -> Holding:
        """Return what is left when some training samples are left out."""
        return self._at(~np.isin(self.ids, forgotten))

    def only(self, meant: Ids) -> Holding:
        """Return the training samples of these ids alone."""
        return self._at(np.isin(self.ids, meant))

    def _at(self, mask: NDArray[np.bool_]) -> Holding:
        kept = np.flatnonzero(mask)
        rows = torch.from_numpy(kept)
        named = None if self.named_y is None else self.named_y[rows]
        return replace(self, ids=self.ids[kept], x=self.x[rows], y=self.y[rows], named_y=named)

    @property
    def names(self) -> NDArray[np.int64]:
        """The labels that requests name training samples by, shape (n,)."""
        names: NDArray[np.int64] = (self.y if self.named_y is None else self.named_y).numpy()
        return names

    @property
    def audited_x(self) -> torch.Tensor:
        """What an audit looks at beside the test samples: training images, then triggered ones."""
        return self.x if self.triggered_x is None else torch.cat([self.x, self.triggered_x])
