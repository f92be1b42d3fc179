"""Which samples of a data set a run sees: fewer of them, or those of a shadow run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Settings, between, not_negative, setting
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.unlearning.exactness import Ids, order

Split = Literal["train", "test"]

# Of what the target does not see, so that no two shadow runs need to train on the same.
_MOST_OF_POOL = 0.75


@dataclass(frozen=True, kw_only=True)
class Selection(Settings):
    """What a run is to see of each split; ids stay rows of the whole data set.

    First `samples` of the train split and `test_samples` of the test split are chosen, of all
    labels together, or all for 0. Then the share `shadow_share` of each label is set aside, in both
    splits. Both are drawn label by label, from the seed.

    The target, `shadow` 0, sees the rest. Shadow run 1, 2, ... is tested on all that was set aside,
    and trained on a part of it that is drawn for that run: of each label as many samples as the
    target has, but three quarters of what there is at most, and one at least.
    """

    samples: int = setting(
        not_negative(0, "train samples that the run sees, of all labels in proportion; 0 for all")
    )
    test_samples: int = setting(not_negative(0, "the same of the test samples"))
    shadow_share: float = setting(
        between(
            0.0,
            "0 <= x < 1",
            "share of each label's samples, train and test, kept from the run for its shadow runs",
        )
    )
    shadow: int = setting(
        not_negative(
            0,
            "0 for a run that shadow runs are compared with; "
            "from 1, which of its shadow runs this is",
        )
    )

    def check(self) -> None:
        """Refuse a shadow run that there are no samples for.

        Raises
        ------
        UserError
            In one line.
        """
        if self.shadow and not self.shadow_share:
            raise refuse("shadow", self.shadow, "0 (shadow-share=0 keeps nothing for shadow runs)")

    def training_seed(self, seed: int) -> int:
        """Return the seed of all that is not about data, given the run's.

        That of a shadow run differs from its target's. Which samples a run sees and who holds them
        follows from the run's seed alone.
        """
        return derive_seed(seed, "shadow-run", self.shadow) if self.shadow else seed

    def seen(self, labels: NDArray[np.int64], split: Split, seed: int) -> Ids:
        """Return the ids, sorted, that the run sees of a split.

        The index of `labels`, which are of the whole split, is the sample's id. The seed is the
        run's; a target and its shadow runs have the same.

        Raises
        ------
        UserError
            If there are not so many samples, or fewer are asked for than there are labels.
        """
        wanted = self.samples if split == "train" else self.test_samples
        counts = np.bincount(labels)
        if wanted:
            counts = _stratified(counts, wanted, split)
        parts = [np.empty(0, dtype=np.int64)]
        for label, count in enumerate(counts):
            of_label = np.flatnonzero(labels == label)
            chosen = _first(of_label, count, derive_seed(seed, "samples", split))
            parts.append(self._of_label(chosen, split, seed))
        return np.sort(np.concatenate(parts))

    def _of_label(self, chosen: Ids, split: Split, seed: int) -> Ids:
        """Return what the run sees of the samples of one label."""
        # Something is left for the target.
        aside = min(round(self.shadow_share * len(chosen)), max(len(chosen) - 1, 0))
        pool = _first(chosen, aside, derive_seed(seed, "shadow-pool", split))
        rest = np.setdiff1d(chosen, pool)
        if self.shadow == 0:
            return rest
        if split == "test":
            return pool
        count = min(len(rest), max(1, int(_MOST_OF_POOL * len(pool))), len(pool))
        return _first(pool, count, derive_seed(seed, "shadow", self.shadow))


def _first(ids: Ids, count: int, seed: int) -> Ids:
    """Draw some of the ids; a smaller draw is part of a larger one."""
    return ids[order(ids, seed)[:count]]


def _stratified(counts: NDArray[np.int64], wanted: int, split: Split) -> NDArray[np.int64]:
    """Return how many to take of each label: one, and of the rest its share, as near as can be."""
    labels, total = int((counts > 0).sum()), int(counts.sum())
    if not labels <= wanted <= total:
        key = "samples" if split == "train" else "test-samples"
        allowed = f"0 for all, or {labels}, one of each label, to {total}, all of the {split} split"
        raise refuse(key, wanted, allowed)
    first = np.minimum(counts, 1)
    spare = counts - first
    ideal = spare * ((wanted - labels) / max(int(spare.sum()), 1))
    taken = np.floor(ideal).astype(np.int64)
    odd = np.argsort(-(ideal - taken), kind="stable")[: wanted - labels - int(taken.sum())]
    taken[odd] += 1
    return np.asarray(first + taken)
