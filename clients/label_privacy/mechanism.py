"""Differentially private noise on smashed data: mechanism, unit of privacy, and budget.

The paper writes V* = V + DP(ε) and names neither mechanism, sensitivity nor clipping. Here a record
is clipped, so that replacing it by another changes it by a bounded amount, and gets Laplace noise
or the noise of the analytic Gaussian mechanism (Balle and Wang, 2018). Calibration and accounting
are those of Google's dp-accounting.

A guarantee covers a released vector, given the client segment and the masked label. It does not
cover that the segment was trained on the record, nor the label, nor, with the copies ``modes``, the
choice of the masked label, which depends on the vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Option, Options, between, one_of, positive

Kind = Literal["laplace", "gaussian"]
Unit = Literal["record", "element"]

# Rounding to float32 adds at most a part in 2**24 to a norm: clipped records leave room for it.
_ROOM = 1 - 2.0**-22
# Records that are clipped at a time, since float64 takes twice the memory.
_ROWS = 256
# A norm summed in float64 is exact to less than this.
_NORM_ERROR = 1 - 2.0**-40
# Released numbers are multiples of about this part of the noise's scale.
_GRID = 2.0**-16
# For a larger ε the library cannot compose the loss distribution.
_HARDLY_PRIVATE = 100.0


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


@dataclass(frozen=True)
class Spent:
    """The privacy budget that several releases of one record use together.

    `epsilon` and `delta` are by the tightest composition that the library knows; `pure_epsilon`
    holds with a δ of 0, and is None for Gaussian noise, which has none. With the copies
    ``replicate`` an upload has γ `releases`, else one. The promise covers a `unit`.
    """

    epsilon: float
    delta: float
    pure_epsilon: float | None
    releases: int
    unit: Unit


@dataclass(frozen=True)
class Mechanism:
    """Clipping, and noise in proportion to the clip.

    The guarantee is that of noise on real numbers. Drawn from 52 random bits, it ends where the
    ideal has a tail of 2**-53 left, on each side of each coordinate, which is to be added to δ.

    `epsilon` is for one release of one record, or of one coordinate: above 0, finite. `delta` is
    between 0 and 1; it may be 0 for Laplace noise, whose single release needs none, and `spent`
    composes at it. `clip` bounds a record's L1 norm (Laplace) or L2 norm (Gaussian), or the size of
    each coordinate (``element``), in units of the smashed data. With the unit ``record`` the noise
    hides which record it was; with ``element``, a far weaker promise, the value of any one
    coordinate from a reader of the others.

    Raises
    ------
    UserError
        If a value is not possible.
    """

    own_options: ClassVar = {
        "mechanism": one_of(
            "laplace", get_args(Kind), "noise on what is uploaded, where epsilon is given"
        ),
        "epsilon": Option(
            "none",
            "a number > 0, or none",
            lambda text: text == "none" or _is_positive(text),
            "privacy budget of one upload of one record; none for no noise",
            mixed=True,
        ),
        "delta": between(1e-5, "0 < x < 1", "δ, of the Gaussian mechanism"),
        "clip": positive(1.0, "bound on smashed data under noise: a record's norm, or an element"),
        "privacy-unit": one_of(
            "record",
            get_args(Unit),
            "what epsilon is about: a whole record, or each element of one alone",
        ),
    }

    kind: Kind
    epsilon: float
    delta: float
    clip: float
    unit: Unit

    @classmethod
    def of(cls, options: Options) -> Mechanism | None:
        """Return the mechanism that settings ask for, None without noise.

        Raises
        ------
        UserError
            If noise is described and not asked for.
        """
        if options["epsilon"] != "none":
            return cls(
                cast(Kind, options["mechanism"]),
                float(options["epsilon"]),
                options.number("delta"),
                options.number("clip"),
                cast(Unit, options["privacy-unit"]),
            )
        for name, option in cls.own_options.items():
            if options[name] != option.default:
                allowed = f"{option.default!r} (epsilon='none' adds no noise)"
                raise refuse(name, options[name], allowed)
        return None

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
        """The largest distance of two clipped records, or coordinates, in the norm of `clip`."""
        return 2 * self.clip

    @cached_property
    def scale(self) -> float:
        """The parameter b of the Laplace distribution, or the standard deviation σ."""
        if self.kind == "laplace":
            # The library computes this by exp and log, which overflow for a large ε.
            return self.sensitivity / self.epsilon
        # The import takes long, and clients without noise do not need it.
        from dp_accounting import get_sigma_gaussian

        return self.sensitivity * float(get_sigma_gaussian(self.epsilon, self.delta))

    def clip_records(self, smashed: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return clipped records of shape (n, ...); what is inside the clip keeps its bits.

        Records are scaled down to the norm `clip`, or coordinates cut off at ±`clip`. The bound
        holds for the float32 result, rounding included.

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
        """Return noise, in units of the smashed data, by the inverse distribution function.

        Each uniform draw between 0 and 1 (excluded) gives the noise of one coordinate.
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
        """Return clipped records with noise: float32, shape (n, ...).

        The sum is taken in float64 and rounded to a grid much coarser than that and much finer than
        the noise: the floating-point numbers that noise can reach depend on the record, and the low
        bits of a sum would reveal it (Mironov, 2012). The uniform draws, as in `noise`, must not be
        used for anything else.
        """
        grid = 2.0 ** math.floor(math.log2(self.scale * _GRID))
        noisy = self.noise(uniforms)
        noisy += clipped
        noisy /= grid
        np.rint(noisy, out=noisy)
        noisy *= grid
        return noisy.astype(np.float32)

    def spent(self, releases: int) -> Spent:
        """Return the cost of several releases of one record, each with fresh noise.

        Releases are the copies of all uploads of the record; an upload may depend on those before.
        The cost is at `delta`. For Laplace noise it comes from the privacy loss distribution,
        rounded up by less than a thousandth of `epsilon` a release, and is never more than the pure
        ε, which it is for a `delta` of 0 and an `epsilon` above 100. For Gaussian noise it is
        exact: n releases are one with a standard deviation of σ/√n.
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
