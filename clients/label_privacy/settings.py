"""How a client of SplitWiper+ hides its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch

from split_unlearning.clients.label_privacy.consensus import ConsensusSettings
from split_unlearning.clients.label_privacy.copies import COPIES, Copies
from split_unlearning.clients.label_privacy.guarantee import SEED_IS_KNOWN, Guarantee
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
        **ConsensusSettings.declared(),
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

    def guarantee(self, uploads: Mapping[int, int]) -> Guarantee | None:
        """Return what noise guarantees of smashed data; None without noise.

        It is that of the client with the most uploads.
        """
        mechanism = self.mechanism
        if mechanism is None:
            return None
        copies = self.expansion.high if self.copies == "replicate" else 1
        spent = mechanism.spent(copies * max(uploads.values(), default=0))
        unit = "one train record's smashed data"
        if mechanism.unit == "element":
            unit = f"one number of {unit}, for who knows all its others"
        uncovered = [
            "the client segment, which was trained on the record",
            "the masked labels, and what follows from how many records come under each",
            "test records, whose smashed data are uploaded without noise",
            "a request that names a label, and which masked labels are gone after it",
        ]
        if self.copies == "modes":
            uncovered.append("the choice of a masked label, for which the record was looked at")
        if self.secrets == "seed":
            uncovered.append(SEED_IS_KNOWN.format("the noise and the map of labels"))
        return Guarantee(
            mechanism=f"{mechanism.kind}, clipped to {mechanism.clip:g}, copies by {self.copies}",
            unit=unit,
            epsilon_per_release=mechanism.epsilon,
            delta_per_release=0.0 if mechanism.kind == "laplace" else mechanism.delta,
            releases=spent.releases,
            epsilon=spent.epsilon,
            delta=spent.delta,
            covers=("what is uploaded, given the client segment and the masked label",),
            does_not_cover=tuple(uncovered),
            more={"pure_epsilon": spent.pure_epsilon, "uploads": dict(sorted(uploads.items()))},
        )

    def clipped(self, smashed: torch.Tensor) -> torch.Tensor:
        """Return smashed data as the mechanism clips it, before any noise; without one as it is."""
        if self.mechanism is None:
            return smashed
        return torch.from_numpy(self.mechanism.clip_records(smashed.numpy()))
