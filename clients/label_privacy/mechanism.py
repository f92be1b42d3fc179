"""Differentially private noise on smashed data: what it promises, at which unit, at what price.

The paper writes V* = V + DP(ε) and names neither mechanism, sensitivity nor clipping. Here a
record is clipped, so that replacing it by another changes it by a bounded amount, and gets Laplace
noise or the noise of the analytic Gaussian mechanism (Balle and Wang, 2018). Calibration and
accounting are those of Google's dp-accounting.

A guarantee covers a released vector, given the client segment and the masked label. It does not
cover that the segment was trained on the record, nor the label, nor, with the copies ``modes``,
the choice of the masked label, for which the vector was looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse

Kind = Literal["laplace", "gaussian"]
Unit = Literal["record", "element"]

# Rounding to float32 adds at most a part in 2**24 to a norm; what is clipped leaves room for that.
_ROOM = 1 - 2.0**-22
# So many records are clipped at a time: float64 takes twice the memory.
_ROWS = 256
# The norm itself, summed up in float64, is out by less than this.
_NORM_ERROR = 1 - 2.0**-40
# A released number is a multiple of about this part of the noise's scale.
_GRID = 2.0**-16
# Above it a loss distribution is all but its two ends, and the library cannot compose it.
_HARDLY_PRIVATE = 100.0


@dataclass(frozen=True)
class Spent:
    """The privacy budget that some releases of one record use up together.

    Parameters
    ----------
    epsilon, delta : float
        So much, by the tightest composition that the library knows.
    pure_epsilon : float or None
        The ε that holds with a δ of 0; None for Gaussian noise, which has none.
    releases : int
        How many there were: with the copies ``replicate`` γ for each upload, else one.
    unit : "record" or "element"
        Of what the promise speaks: a whole record, or one coordinate of it alone.
    """

    epsilon: float
    delta: float
    pure_epsilon: float | None
    releases: int
    unit: Unit


@dataclass(frozen=True)
class Mechanism:
    """Clipping, and noise in proportion to it.

    The guarantee is that of noise on real numbers. Drawn from 52 random bits, it ends where the
    ideal has a tail of 2**-53 left, on each side of each coordinate, which is to be added to δ.

    Parameters
    ----------
    kind : "laplace" or "gaussian"
        The distribution of the noise.
    epsilon : float
        Of one release of one record, or of one coordinate: above 0, finite.
    delta : float
        Between 0 and 1. For Laplace noise, whose single release needs none, it may be 0; it is
        what `spent` composes at.
    clip : float
        Above 0, in units of the smashed data: a bound on a record's L1 norm (Laplace) or L2 norm
        (Gaussian), or on the size of each coordinate (``element``).
    unit : "record" or "element"
        What the noise hides: which record it was, or the value of any one coordinate, for who
        knows the others. The second is a far weaker promise.

    Raises
    ------
    UserError
        If a value is not possible.
    """

    kind: Kind
    epsilon: float
    delta: float
    clip: float
    unit: Unit

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise refuse("mechanism", self.kind, " or ".join(get_args(Kind)))
        if self.unit not in get_args(Unit):
            raise refuse("privacy-unit", self.unit, " or ".join(get_args(Unit)))
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise refuse("epsilon", self.epsilon, "a number above 0")
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise refuse("clip", self.clip, "a number above 0")
        if self.kind == "gaussian" and not 0 < self.delta < 1:
            raise refuse("delta", self.delta, "between 0 and 1, both excluded, for gaussian")
        if not 0 <= self.delta < 1:
            raise refuse("delta", self.delta, "from 0 on, below 1, for laplace")

    @property
    def sensitivity(self) -> float:
        """How far apart two clipped records, or coordinates, can be, in the norm of `clip`."""
        return 2 * self.clip

    @cached_property
    def scale(self) -> float:
        """The parameter b of the Laplace distribution, or the standard deviation σ."""
        if self.kind == "laplace":
            # The definition; the library's way to it, by exp and log, overflows for a large ε.
            return self.sensitivity / self.epsilon
        # Imported here: it takes its time, and clients that mask nothing start too.
        from dp_accounting import get_sigma_gaussian

        return self.sensitivity * float(get_sigma_gaussian(self.epsilon, self.delta))

    def clip_records(self, smashed: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return smashed data inside the clip; what is inside already keeps its bits.

        Parameters
        ----------
        smashed : array of float32, shape (n, ...)
            One record a row.

        Returns
        -------
        array of float32, shape (n, ...)
            Records scaled down to the norm `clip`, or coordinates cut off at ±`clip`. The bound
            holds for what is returned, rounding included.

        Raises
        ------
        UserError
            If a number is not finite: no clip holds for that.
        """
        if not np.isfinite(smashed).all():
            raise UserError(
                "smashed data hold numbers that are not finite, which nothing can mask; "
                "allowed: a client segment whose training did not diverge"
            )
        if self.unit == "element":
            bound = np.float32(self.clip)
            if float(bound) > self.clip:
                bound = np.nextafter(bound, np.float32(0))
            return np.clip(smashed, -bound, bound)
        clipped = np.array(smashed, dtype=np.float32, order="C")
        rows = clipped.reshape(len(clipped), math.prod(clipped.shape[1:]))
        for first in range(0, len(rows), _ROWS):
            block = rows[first : first + _ROWS].astype(np.float64)
            norms = np.linalg.norm(block, ord=1 if self.kind == "laplace" else 2, axis=1)
            outside = norms > self.clip * _NORM_ERROR
            factors = self.clip * _ROOM / norms[outside]
            rows[first : first + _ROWS][outside] = block[outside] * factors[:, None]
        return clipped

    def noise(self, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the noise that uniform draws stand for, by the inverse distribution function.

        Parameters
        ----------
        uniforms : array of float64
            Between 0 and 1, both excluded, each for one coordinate.

        Returns
        -------
        array of float64, of the same shape
            In units of the smashed data.
        """
        if self.kind == "gaussian":
            from scipy.special import ndtri

            normal: NDArray[np.float64] = ndtri(uniforms)
            return normal * self.scale
        centred = uniforms - 0.5
        sizes = -self.scale * np.log1p(-2 * np.abs(centred))
        laplace: NDArray[np.float64] = np.copysign(sizes, centred)
        return laplace

    def released(
        self, clipped: NDArray[np.float32], uniforms: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return clipped records with noise.

        The sum is taken in float64 and rounded to a grid much coarser than that and much finer
        than the noise: which floating-point numbers noise can reach depends on what it is added
        to, and the low bits of a sum would tell that (Mironov, 2012).

        Parameters
        ----------
        clipped : array of float32, shape (n, ...)
            From `clip_records`.
        uniforms : array of float64, shape (n, ...)
            As in `noise`; never used for anything else.

        Returns
        -------
        array of float32, shape (n, ...)
        """
        grid = 2.0 ** math.floor(math.log2(self.scale * _GRID))
        noisy = self.noise(uniforms)
        noisy += clipped
        noisy /= grid
        np.rint(noisy, out=noisy)
        noisy *= grid
        return noisy.astype(np.float32)

    def spent(self, releases: int) -> Spent:
        """Return what so many releases of one record, each with fresh noise, cost together.

        Parameters
        ----------
        releases : int
            From 0 on: the copies of all uploads of the record. What is uploaded may depend on
            what was before.

        Returns
        -------
        Spent
            At `delta`. For Laplace noise by the privacy loss distribution, rounded up by less than
            a thousandth of `epsilon` a release, and never more than the pure ε, which it is for a
            `delta` of 0 and an `epsilon` above 100. For Gaussian noise exactly: n releases are one
            with a standard deviation of σ/√n.
        """
        if releases < 0:
            raise ValueError(f"{releases} releases")
        pure = releases * self.epsilon if self.kind == "laplace" else None
        return Spent(self._composed(releases), self.delta, pure, releases, self.unit)

    def _composed(self, releases: int) -> float:
        if releases == 0:
            return 0.0
        multiplier = self.scale / self.sensitivity
        if self.kind == "gaussian":
            from dp_accounting import get_epsilon_gaussian

            return float(get_epsilon_gaussian(multiplier / math.sqrt(releases), self.delta))
        pure = releases * self.epsilon
        if self.delta == 0 or self.epsilon > _HARDLY_PRIVATE:
            return pure
        from dp_accounting import LaplaceDpEvent
        from dp_accounting.pld import PLDAccountant

        accountant = PLDAccountant(value_discretization_interval=self.epsilon / 1000)
        accountant.compose(LaplaceDpEvent(multiplier), releases)
        return min(pure, float(accountant.get_epsilon(self.delta)))
