"""Noise on the gradient that the server returns at the cut.

In the papers' setting one party holds the images and *another* the labels, and the noise keeps the
first from reading labels off the gradients that come back: off their norms, off their directions.
In vanilla split learning as it is here labels go to the server and a client knows its own: this
noise hides nothing from the server, and nothing from the client that it is sent to. It is here to
compare what such protection costs in accuracy. It would hide labels from whoever sees the gradients
and neither labels nor smashed data on their way. It gives no differential privacy; and it is drawn
from the run's seed, so that whoever knows that can subtract it: it protects in no deployment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Option, Options, is_not_negative, one_of
from split_unlearning.strategies.server.marvell import TwoLabels, best_noise, shared_noise

GRADIENT_NOISES = ("max-norm", "marvell")


@dataclass(frozen=True)
class GradientNoise:
    """Which noise the server adds to a batch's gradients at the cut.

    `power` is what `marvell` may add, in units of the squared distance between the labels' mean
    gradients (the paper's s); max-norm takes none.

    Raises
    ------
    UserError
        If there is no such noise, or the power is not its own.
    """

    own_options: ClassVar = {
        "gradient-noise": one_of(
            "none", ("none", *GRADIENT_NOISES), "noise on the gradients that the server returns"
        ),
        "gradient-noise-power": Option(
            0.0,
            "a number > 0, or 0 without marvell",
            is_not_negative,
            "of marvell's noise, in squared distances between the labels' gradients",
        ),
    }

    kind: str
    power: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in GRADIENT_NOISES:
            raise refuse("gradient-noise", self.kind, ", ".join(GRADIENT_NOISES))
        if self.needs_labels and not 0 < self.power < float("inf"):
            allowed = f"a number > 0 (with gradient-noise={self.kind!r})"
            raise refuse("gradient-noise-power", self.power, allowed)
        if not self.needs_labels and self.power:
            allowed = f"0 (gradient-noise={self.kind!r} follows from the batch alone)"
            raise refuse("gradient-noise-power", self.power, allowed)

    @classmethod
    def of(cls, options: Options) -> GradientNoise | None:
        """Return the noise that settings ask for, None for none; raises as the class."""
        kind, power = options.text("gradient-noise"), options.number("gradient-noise-power")
        if kind != "none":
            return cls(kind, power)
        if power:
            raise refuse("gradient-noise-power", power, "0 (without gradient-noise='marvell')")
        return None

    @property
    def needs_labels(self) -> bool:
        """Whether the noise depends on the labels of a batch."""
        return self.kind == "marvell"

    def added_to(
        self, gradient: torch.Tensor, labels: torch.Tensor | None, seed: int
    ) -> torch.Tensor:
        """Return a batch's gradients, float32, shape (n, ...), with noise.

        `labels` are those that the server was sent, int64, shape (n,).

        Raises
        ------
        ValueError
            If the noise depends on labels, and the server was sent none.
        """
        # Drawn on the CPU: the same noise wherever the segment is.
        generator = torch.Generator().manual_seed(seed)
        rows = gradient.flatten(1).double().cpu()
        if self.needs_labels:
            if labels is None:
                raise ValueError("gradient-noise='marvell' needs labels, and none were sent")
            noisy = marvell(rows, labels.cpu(), self.power, generator)
        else:
            noisy = max_norm(rows, generator)
        return noisy.to(gradient).reshape(gradient.shape)


def max_norm(gradient: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return gradients whose expected squared norms are all that of the largest of the batch.

    The paper's heuristic ``max_norm``: each gradient is stretched along itself, g·(1 + σ·z) with
    σ² = ‖g_max‖² / ‖g‖² - 1 and z normal. It hides the norm; of the direction all but the sign
    stays. A gradient that is zero stays zero.

    Gradients are float64, shape (n, d).
    """
    norms = gradient.norm(dim=1, keepdim=True)
    ratio = norms.max() / norms.where(norms > 0, norms.max())
    deviation = (ratio.square() - 1).clamp(min=0).sqrt()
    stretched = torch.randn(norms.shape, generator=generator, dtype=gradient.dtype)
    noisy: torch.Tensor = gradient * (1 + deviation.where(norms > 0, 0.0) * stretched)
    return noisy


def marvell(
    gradient: torch.Tensor, labels: torch.Tensor, power: float, generator: torch.Generator
) -> torch.Tensor:
    """Return gradients with the noise that best hides their labels, at a given power.

    With two labels in the batch it is the paper's (`marvell.best_noise`). With more it is in its
    style (`marvell.shared_noise`), and ours; the power is then in units of the mean squared
    distance over the pairs of labels. Means and variances are those of the batch. With one label,
    or where no mean differs, there is nothing to hide within the batch: nothing is added, and what
    differs between batches is not hidden.

    Gradients are float64, shape (n, d), labels int64, shape (n,).
    """
    present, of = labels.unique(return_inverse=True)
    counts = of.bincount().double()
    means = torch.zeros(len(present), gradient.shape[1], dtype=gradient.dtype)
    means.index_add_(0, of, gradient).div_(counts[:, None])
    # Summed over all pairs of labels, ‖Δg‖² is the number of labels times this.
    scatter = float((means - means.mean(dim=0)).square().sum())
    pairs = len(present) * (len(present) - 1) / 2
    if scatter == 0:
        return gradient
    budget = power * scatter * len(present) / pairs
    squares = (gradient - means[of]).square().mean(dim=1)
    normal = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
    if len(present) == 2:
        return gradient + _of_two(means, squares, of, budget, normal)
    directions, variances = shared_noise(means, float(squares.mean()), budget)
    spread = variances.sqrt()[:, None] * directions
    return gradient + normal[:, : len(spread)] @ spread


def _of_two(
    means: torch.Tensor,
    squares: torch.Tensor,
    of: torch.Tensor,
    budget: float,
    normal: torch.Tensor,
) -> torch.Tensor:
    """Return the noise for a batch of two labels, given normal numbers."""
    gap = means[1] - means[0]
    ones = of.double()
    noise = best_noise(
        TwoLabels(
            dimensions=gap.numel(),
            gap=float(gap.square().sum()),
            variances=(float(squares[of == 0].mean()), float(squares[of == 1].mean())),
            share=float(ones.mean()),
        ),
        budget,
    )
    along, across = (
        torch.tensor(variances, dtype=gap.dtype).sqrt()[of][:, None]
        for variances in (noise.along, noise.across)
    )
    direction = gap / gap.norm()
    noise_along: torch.Tensor = (along - across) * (normal @ direction)[:, None] * direction
    return across * normal + noise_along
