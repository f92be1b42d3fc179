"""The input of a network: images as numbers, or texts as token ids."""

from __future__ import annotations

import torch

from split_unlearning.foundations.errors import refuse

Shape = tuple[int, ...]
"""Shape of a sample: channels, height and width of an image, or a text's number of tokens."""


def is_text(shape: Shape) -> bool:
    """Say whether samples of this shape are texts."""
    return len(shape) == 1


def check_images(model: str, shape: Shape) -> None:
    """Refuse texts, which a model for images does not take.

    Raises
    ------
    UserError
        In one line.
    """
    if is_text(shape):
        allowed = f"bert, or one of yours that reads tokens (the samples are {described(shape)})"
        raise refuse("model", model, allowed)


def blank(shape: Shape, samples: int) -> torch.Tensor:
    """Return blank samples: images of zeros (float32) or texts of padding (int64)."""
    return torch.zeros(samples, *shape, dtype=torch.int64 if is_text(shape) else torch.float32)


def example(shape: Shape, samples: int) -> torch.Tensor:
    """Return samples that differ: random images from 0 to 1, or texts with little padding."""
    if is_text(shape):
        texts = 1 + torch.arange(samples * shape[0]).view(samples, -1) % 97
        texts[:, shape[0] // 2 + 1 :] = 0
        return texts
    return torch.rand(samples, *shape)


def described(shape: Shape) -> str:
    """Describe samples of this shape in words."""
    return f"texts of {shape[0]} tokens" if is_text(shape) else f"images of shape {shape}"
