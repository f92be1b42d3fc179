"""What is guaranteed of a run's privacy, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SEED_IS_KNOWN = "whoever knows the run's seed, from which this simulation draws {}"


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """A guarantee of differential privacy, as ``result.json`` says it.

    One release costs `epsilon_per_release` and `delta_per_release`, all `releases` of a `unit`
    together `epsilon` and `delta`; `more` is what else a mechanism says.
    """

    mechanism: str
    unit: str
    epsilon_per_release: float
    delta_per_release: float
    releases: int
    epsilon: float
    delta: float
    covers: tuple[str, ...]
    does_not_cover: tuple[str, ...]
    more: Mapping[str, object] = field(default_factory=dict)
