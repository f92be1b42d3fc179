"""What has to hold when a run on a state-dir was killed, and killing at random moments."""

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from split_unlearning.simulations.state.state_dir import StateDir
from split_unlearning.unlearning.exactness import digest
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.state.bench import folders, outcome, pieces


@dataclass(frozen=True)
class Job:
    """A command, and the state-dir that it begins with; None if it begins with none."""

    function: str
    settings: dict[str, Any]
    requests: Sequence[tuple[str, int]] = ()
    begins_with: Path | None = None

    def arguments(self, path):
        """What the command is called with, on a state-dir at this place."""
        return self.function, path, self.settings, *self.requests


def kept_segments(path):
    """The digest of the segment that each folder holds; None where there is none yet."""
    weights = {name: TensorStore(kept).load("segment") for name, kept in folders(path).items()}
    return {name: weights[name] and digest(weights[name]) for name in weights}


def assert_of_one_piece(path, before, after):
    """Every folder, read anew, is what it was before or what it is afterwards, all of it."""
    StateDir(path)
    # Reading every file compares it with what was written.
    now = pieces(path)
    for folder, kept in now.items():
        assert kept in (before.get(folder, {}), after[folder]), folder
    if now["server"] == after["server"] != before.get("server"):
        # The server is last: whoever reads its new segment finds new clients.
        assert now == after


def last_event(path):
    """What the journal of a state-dir says last."""
    state = StateDir(path)
    return state.journal.events[-1]["event"] if state.journal.events else "nothing"


def killed_at_random(forks, job, whole, folder, seconds, kills, seed):
    """Kill a command at random moments, often several times, until it has finished.

    Parameters
    ----------
    forks : Forks
        That run it.
    job : Job
        The command.
    whole : Path
        A state-dir on which nothing interrupted it.
    folder : Path
        Where to put others.
    seconds : float
        How long it takes.
    kills : int
        How often to kill it.
    seed : int
        Of the moments.

    Returns
    -------
    Counter
        How often the journal said last what, when it was killed.
    """
    expected, after = outcome(whole), pieces(whole)
    before = pieces(job.begins_with) if job.begins_with else {}
    one_change = job.begins_with is not None
    draw, hits = random.Random(seed), Counter[str]()
    for number in count():
        path = folder / f"random-{number}" / "state"
        path.parent.mkdir()
        if job.begins_with:
            shutil.copytree(job.begins_with, path)
        again = True
        while again and hits.total() < kills:
            became = forks.run(*job.arguments(path), kill_after=draw.uniform(0, seconds))
            assert became["error"] == ""
            hits.update([last_event(path)] if became["killed"] else [])
            # Half of those that were killed are killed once more, and half of them again; who was
            # not has finished.
            again = became["killed"] and draw.random() < 0.5
            if one_change:
                assert_of_one_piece(path, before, after)
            elif path.exists():
                pieces(path)
        forks.done(*job.arguments(path))
        assert outcome(path) == expected
        shutil.rmtree(path.parent)
        if hits.total() == kills:
            return hits
