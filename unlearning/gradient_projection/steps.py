"""The steps of a training: whose batch each was, and what has been forgotten of it since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.exactness import Ids


@dataclass(frozen=True)
class Step:
    """One step of training.

    The number is t, from 0, among all steps of the training, whichever client took them; the client
    is that whose batch it was, of samples with these ids, empty where they are not known. `stage`
    says which of the trainings in a row it belongs to: with each, momentum begins anew. So many
    samples of the batch as `removed` says were forgotten since: nothing of them is in the gradient,
    or in `ids`; the gradient is still a part of the mean over `batch_size`.
    """

    number: int
    client: int
    batch_size: int
    learning_rate: float
    ids: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    stage: int = 0
    removed: int = 0

    @property
    def samples(self) -> int:
        """How many samples the gradient is of."""
        return self.batch_size - self.removed


def pack(steps: list[Step], run: str) -> dict[str, torch.Tensor]:
    """Return what is known of some steps, and of which training they are, as tensors."""
    return {
        "run": torch.tensor(list(run.encode()), dtype=torch.uint8),
        "numbers": torch.tensor([step.number for step in steps]),
        "clients": torch.tensor([step.client for step in steps]),
        "batch-sizes": torch.tensor([step.batch_size for step in steps]),
        "learning-rates": torch.tensor([step.learning_rate for step in steps], dtype=torch.float64),
        "known": torch.tensor([len(step.ids) for step in steps]),
        "ids": torch.from_numpy(np.concatenate([step.ids for step in steps])),
        "stages": torch.tensor([step.stage for step in steps]),
        "removed": torch.tensor([step.removed for step in steps]),
    }


def unpack(kept: Mapping[str, torch.Tensor], run: str) -> list[Step]:
    """Read what `pack` wrote.

    Raises
    ------
    UserError
        If the steps are of another training.
    """
    written = bytes(kept["run"].tolist()).decode(errors="replace")
    if written != run:
        raise UserError(
            f"the gradient cache is of another run ({written!r}, not {run!r}); allowed: that of "
            "the training that is to forget"
        )
    ids = np.split(kept["ids"].numpy(), np.cumsum(kept["known"].numpy())[:-1])
    columns = ("numbers", "clients", "batch-sizes", "learning-rates")
    since = (kept[name].tolist() for name in ("stages", "removed"))
    rows = zip(*(kept[name].tolist() for name in columns), ids, *since, strict=True)
    return [Step(*row) for row in rows]


def pack_shifts(shifts: Mapping[int, Mapping[str, float]]) -> dict[str, torch.Tensor]:
    """Return the shifts of some steps as tensors, one row a step."""
    names = list(next(iter(shifts.values())))
    columns = {
        f"shift/{name}": torch.tensor([one[name] for one in shifts.values()], dtype=torch.float64)
        for name in names
    }
    return {"numbers": torch.tensor(list(shifts)), **columns}


def unpack_shifts(kept: Mapping[str, torch.Tensor]) -> dict[int, dict[str, float]]:
    """Read what `pack_shifts` wrote."""
    columns = {key.removeprefix("shift/"): kept[key].tolist() for key in kept if key != "numbers"}
    numbers = kept["numbers"].tolist() if kept else []
    return {
        number: {name: column[row] for name, column in columns.items()}
        for row, number in enumerate(numbers)
    }
