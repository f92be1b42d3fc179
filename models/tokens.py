"""Texts as rows of vectors: which of them are padding, and how a row becomes one vector.

Both sides of the cut have to know which vectors are padding, and nothing but smashed data crosses
it. So each layer sets those of padding to exactly zero, and takes a vector that is zero everywhere
as padding: layer norm, which ends each layer, makes no other one zero. With noise on smashed data
(SplitWiper+) no vector is zero, and padding counts as text from there on.
"""

from __future__ import annotations

import torch
from torch import nn

PADDING = 0
"""The id of the token that stands for nothing, where a text is shorter than the others."""


def present(vectors: torch.Tensor) -> torch.Tensor:
    """Return which vectors are of text, not of padding.

    Parameters
    ----------
    vectors : tensor of float32, shape (n, length, hidden)

    Returns
    -------
    tensor of bool, shape (n, length)
    """
    return (vectors != 0).any(dim=-1)


class MeanOfTokens(nn.Module):
    """The mean of a text's vectors, those of padding left out; zero for a text of padding alone."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the means of rows of shape (n, length, hidden); shape (n, hidden)."""
        # Padding is zero and adds nothing.
        return vectors.sum(dim=1) / present(vectors).sum(dim=1, keepdim=True).clamp(min=1)
