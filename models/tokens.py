"""Texts as rows of vectors: which vectors are padding, and how a row becomes one vector.

Both sides of the cut have to know which vectors are padding, and nothing but smashed data crosses
the cut. So each layer sets the vectors of padding to exactly zero, and takes a vector of zeros as
padding. Layer norm, which ends each layer, makes no other vector zero. With noise on smashed data
(SplitWiper+) no vector is zero, and padding then counts as text.
"""

from __future__ import annotations

import torch
from torch import nn

PADDING = 0
"""The token id of padding, which fills up texts that are shorter than others."""


def present(vectors: torch.Tensor) -> torch.Tensor:
    """Return which vectors of shape (n, length, hidden) are text: bool, shape (n, length)."""
    return (vectors != 0).any(dim=-1)


class MeanOfTokens(nn.Module):
    """The mean of a text's vectors without padding; zero for a text of padding alone."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the means, shape (n, hidden), of vectors of shape (n, length, hidden)."""
        # Padding is zero and adds nothing.
        return vectors.sum(dim=1) / present(vectors).sum(dim=1, keepdim=True).clamp(min=1)
