"""The samples that one client holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from split_unlearning.unlearning.exactness import Ids


@dataclass(frozen=True)
class Holding:
    """The samples of one client.

    `x` and `y` are its training samples, in the order of their sorted ids (int64, shape (n,)):
    images of float32, shape (n, channels, height, width), or token ids of int64, shape (n, length);
    and labels of int64, shape (n,). Its test split has the same form. `class_names` has every label
    of the data set. Where a backdoor changed the labels to learn, requests name samples by the
    labels `named_y`, and `triggered_x` are the test images with the trigger.
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
        """Return the holding without some training samples."""
        return self._at(~np.isin(self.ids, forgotten))

    def only(self, meant: Ids) -> Holding:
        """Return the holding with the training samples of these ids alone."""
        return self._at(np.isin(self.ids, meant))

    def _at(self, mask: NDArray[np.bool_]) -> Holding:
        kept = np.flatnonzero(mask)
        rows = torch.from_numpy(kept)
        named = None if self.named_y is None else self.named_y[rows]
        return replace(self, ids=self.ids[kept], x=self.x[rows], y=self.y[rows], named_y=named)

    @property
    def names(self) -> NDArray[np.int64]:
        """The labels by which requests name training samples, shape (n,)."""
        names: NDArray[np.int64] = (self.y if self.named_y is None else self.named_y).numpy()
        return names

    @property
    def audited_x(self) -> torch.Tensor:
        """The samples of an audit beside the test samples: training images, then triggered ones."""
        return self.x if self.triggered_x is None else torch.cat([self.x, self.triggered_x])
