"""SIGKILL at random moments of forgetting: what is left each time, and whether it is finished.

    python benchmarks/crashes.py --kills 200

A state-dir of a few digits is learned once. Copies of it are asked to forget, by one client and by
two at once, with slices on both sides; the process is killed at random moments, often several
times, and then left to finish. Each time every folder must hold what it held before or what it
holds afterwards, whole; and once it is finished every segment, checkpoint and shard must be, byte
for byte, that of a run that nothing interrupted. Reported is what the journal said last when the
process was killed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import say

from tests.state.bench import SLICED, certificate, few_digits, learn
from tests.state.crashing import Job, killed_at_random
from tests.state.forks import Forks

ASKED = [[("class:2", 1)], [("samples:0.5@class:2", 1), ("client:2", 2)]]


def killed(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill so often; return what the journal said last, and how often."""
    settings = {**SLICED, "dataset": few_digits(folder / "digits.npz")}
    hits: Counter[str] = Counter()
    with Forks() as forks, redirect_stdout(StringIO()):
        begins_with = folder / "learned" / "state"
        learn(begins_with, settings)
        for number, requests in enumerate(ASKED):
            job = Job("unlearn", settings, requests, begins_with)
            place = folder / str(number)
            whole = place / "whole" / "state"
            learn(whole, settings)
            seconds = forks.done(*job.arguments(whole))["seconds"]
            if not certificate(whole, settings)["holds"]:
                raise RuntimeError("what nothing interrupted is not exact")
            share = kills // 2 + (kills % 2) * number
            hits += killed_at_random(forks, job, whole, place, seconds, share, seed)
    return hits


def main() -> None:
    """Kill, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        hits = killed(Path(folder), chosen.kills, chosen.seed)
    figures = {
        "kills": hits.total(),
        "journal_said_last": dict(hits.most_common()),
        "seconds_in_all": time.perf_counter() - started,
    }
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
