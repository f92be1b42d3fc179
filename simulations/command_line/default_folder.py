"""Where a run writes to that was told no folder: a new one in ``results``, ``latest`` for short."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.files import write_whole
from split_unlearning.simulations.paths import absolute

if TYPE_CHECKING:
    from split_unlearning.simulations.config import RunConfig

_ROOM, _LATEST = "results", "latest"


def new_folder(config: RunConfig, now: datetime) -> Path:
    """Return the path of a folder that is not there yet, named by time, strategy and data set."""
    name = f"{now:%Y-%m-%d-%H%M%S}-{_word(config.strategy)}-{_word(config.own.text('dataset'))}"
    room = Path(absolute(_ROOM))
    numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(room / one for one in numbered if not os.path.lexists(room / one))


def made_folder(config: RunConfig, now: datetime) -> Path:
    """Make a folder as `new_folder` names it, and return its path.

    Runs that begin in the same second find the same name free: the first to make it has it.

    Raises
    ------
    UserError
        If it cannot be made.
    """
    while True:
        folder = new_folder(config, now)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            allowed = f"a folder that you can write to ({error})"
            raise refuse("out", str(folder), allowed) from error
        return folder


def call_latest(folder: Path) -> None:
    """Have ``latest`` lead to a folder beside it; ``latest.txt`` names it where no link can be."""
    latest = folder.with_name(_LATEST)
    try:
        if latest.exists() and not latest.is_symlink():
            raise FileExistsError(latest)
        beside = folder.with_name(f".{_LATEST}")
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder.name, target_is_directory=True)
        beside.replace(latest)
    except (OSError, NotImplementedError):
        # The result is there: that nothing leads to it is no failure of the run.
        with suppress(OSError):
            write_whole(folder.with_name(f"{_LATEST}.txt"), f"{folder.name}\n".encode())


def _word(name: str) -> str:
    """Return a name without the folders and modules that it lies in, fit for a file's name."""
    parts = (Path(part.rpartition(":")[2]).stem or part for part in name.split("+"))
    return re.sub(r"[^A-Za-z0-9.+]+", "-", "+".join(parts)).strip("-.")
