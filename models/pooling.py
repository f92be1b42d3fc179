"""Pooling whose backward pass is deterministic on a GPU."""

from torch import nn


def pool_to_quarters(height: int, width: int) -> tuple[nn.AvgPool2d, int]:
    """Return average pooling to 2x2 cells, or fewer for smaller inputs, and the number of cells.

    Adaptive pooling computes the same, but its backward pass is not deterministic on a GPU.
    """
    kernel = (height - height // 2, width - width // 2)
    pool = nn.AvgPool2d(kernel, stride=(max(1, height // 2), max(1, width // 2)))
    return pool, min(2, height) * min(2, width)
