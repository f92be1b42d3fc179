"""What stands around the segments of a whole model: raw samples in, real labels out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Unmasked(nn.Module):
    """Logits of masked labels as logits of real ones: a label is its masked labels together.

    `real_of` is the real label of each masked one. A real label without masked ones is impossible.
    """

    real_of: torch.Tensor

    def __init__(self, real_of: Sequence[int], num_labels: int) -> None:
        super().__init__()
        self.register_buffer("real_of", torch.tensor(real_of), persistent=False)
        self.num_labels = num_labels

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, labels) for those of shape (n, masked labels)."""
        summed = torch.zeros(len(logits), self.num_labels, device=logits.device)
        probabilities = torch.softmax(logits, dim=1)
        return summed.index_add(1, self.real_of, probabilities).log()


class Scaled(nn.Module):
    """Images as they were read, scaled to [-1, 1]: pixels from 0 to `largest` come in."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 of the same shape."""
        # The memory format is said because that of a single channel is ambiguous, and kernels that
        # guess another one than the other side of the cut round differently.
        floats = x.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        # In place: it is a copy.
        return floats.div_(self.largest / 2).sub_(1)


class Bordered(nn.Module):
    """Images with a border of `value`, up to a height and a width."""

    def __init__(self, height: int, width: int, value: float) -> None:
        super().__init__()
        self.height, self.width, self.value = height, width, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return images of shape (n, channels, height, width)."""
        above, left = (self.height - x.shape[2]) // 2, (self.width - x.shape[3]) // 2
        below, right = self.height - x.shape[2] - above, self.width - x.shape[3] - left
        if above or below or left or right:
            x = nn.functional.pad(x, (left, right, above, below), value=self.value)
        return x


class TokenIds(nn.Module):
    """Token ids of any integer type as what embeddings take."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return int64 of the same shape."""
        return x.to(torch.int64)
