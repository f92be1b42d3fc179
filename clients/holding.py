"""The samples that one client holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from unlearning.exactness import Ids


@dataclass(frozen=True)
class Holding:
    """The samples one client holds.

    Parameters
    ----------
    ids : array of int64, shape (n,)
        Ids of its training samples, sorted.
    x, y : tensor of float32, shape (n, channels, height, width); tensor of int64, shape (n,)
        Its training samples.
    test_ids, test_x, test_y : array, tensor, tensor
        Its test split, in the same form.
    class_names : tuple of str
        Every label of the data set.
    """

    ids: Ids
    x: torch.Tensor
    y: torch.Tensor
    test_ids: Ids
    test_x: torch.Tensor
    test_y: torch.Tensor
    class_names: tuple[str, ...]

    def without(self, forgotten: Ids) -> Holding:
        """Return what is left when some training samples are left out."""
        return self._at(~np.isin(self.ids, forgotten))

    def only(self, meant: Ids) -> Holding:
        """Return the training samples of these ids alone."""
        return self._at(np.isin(self.ids, meant))

    def _at(self, mask: NDArray[np.bool_]) -> Holding:
        kept = np.flatnonzero(mask)
        rows = torch.from_numpy(kept)
        return replace(self, ids=self.ids[kept], x=self.x[rows], y=self.y[rows])
