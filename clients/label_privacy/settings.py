"""How a client of SplitWiper+ hides its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch

from split_unlearning.clients.label_privacy.consensus import ConsensusSettings
from split_unlearning.clients.label_privacy.copies import COPIES, Copies
from split_unlearning.clients.label_privacy.label_map import Expansion
from split_unlearning.clients.label_privacy.mechanism import Mechanism
from split_unlearning.foundations.options import Options, one_of


@dataclass(frozen=True, kw_only=True)
class LabelPrivacy:
    """How a client of SplitWiper+ hides its labels.

    A client's own secret follows, with `secrets` = "seed", from the run's seed, so that a run can
    be repeated and nothing is hidden from anybody who knows the seed; with "drawn" from nothing.
    """

    own_options: ClassVar = {
        **Expansion.own_options,
        **COPIES,
        **Mechanism.own_options,
        "secrets": one_of(
            "seed",
            ("seed", "drawn"),
            "what clients' secrets follow from: the seed, to repeat a run; or nothing, for privacy",
        ),
        **ConsensusSettings.own_options,
    }

    expansion: Expansion
    copies: Copies
    mechanism: Mechanism | None
    secrets: str
    consensus: ConsensusSettings

    @classmethod
    def of(cls, options: Options) -> LabelPrivacy:
        """Return what settings ask for.

        Raises
        ------
        UserError
            If `expansion` is neither a number nor a range, or noise is described and not asked for.
        """
        return cls(
            mechanism=Mechanism.of(options),
            expansion=Expansion.parse(options.text("expansion")),
            copies=cast(Copies, options["copies"]),
            secrets=options.text("secrets"),
            consensus=ConsensusSettings.of(options),
        )

    def clipped(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return smashed data as the mechanism clips it, before any noise; without one as it is."""
        if self.mechanism is None:
            return smashed
        return torch.from_numpy(self.mechanism.clip_records(smashed.numpy()))
