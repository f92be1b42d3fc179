"""How a client of SplitWiper+ hides its labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from split_unlearning.clients.label_privacy.consensus import ConsensusSettings
from split_unlearning.clients.label_privacy.copies import Copies
from split_unlearning.clients.label_privacy.label_map import Expansion
from split_unlearning.clients.label_privacy.mechanism import Mechanism


@dataclass(frozen=True, kw_only=True)
class LabelPrivacy:
    """How a client of SplitWiper+ hides its labels.

    Parameters
    ----------
    expansion : Expansion
        γ, how many masked labels a label becomes.
    copies : str
        How a record meets the masked labels of its label, see `clients.label_privacy.copies`.
    mechanism : Mechanism or None
        The noise on what is uploaded.
    secrets : "seed" or "drawn"
        What a client's own secret follows from: the run's seed, so that a run can be repeated and
        nothing is hidden from who knows the seed; or nothing, drawn once and kept.
    consensus : ConsensusSettings
        How the pool goes round.
    attacks : bool
        Whether a client may tell what masked labels mean, so that attacks on them can be scored.
    """

    expansion: Expansion
    copies: Copies
    mechanism: Mechanism | None
    secrets: str
    consensus: ConsensusSettings
    attacks: bool

    def clipped(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return smashed data as the mechanism clips it, before any noise; without one as it is."""
        if self.mechanism is None:
            return smashed
        return torch.from_numpy(self.mechanism.clip_records(smashed.numpy()))
