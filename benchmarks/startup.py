"""From the command to the first batch: which process is there when.

    python benchmarks/startup.py

Starts the smallest run as a user does, looks ten times a second at which processes there are, and
waits for the line with which learning begins. A benchmark pays all of this once for its whole grid.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from figures import say

ROOT = Path(__file__).resolve().parents[1]

STAGES = {
    "settings checked, SuperLink begun": "flower-superlink",
    "run submitted": "flwr run",
    "simulation begun": "flwr-simulation",
    "Ray begun": "gcs_server",
    "a client's process begun": "ray::ClientAppActor",
}
"""What has begun when there is a process whose command line holds this."""

LEARNING = "learn with"


def measure() -> dict[str, float]:
    """Return the seconds after the command at which each stage begins."""
    command = [sys.executable, "-c", "from simulations.cli import main; main()", "run"]
    command += ["--clients", "1", "--set", "strategy=vanilla", "--set", "server-epochs=1"]
    seen: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        command += ["--out", f"{folder}/out"]
        started = time.perf_counter()
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            ended = threading.Event()
            watch = threading.Thread(target=_watch, args=(started, seen, ended))
            watch.start()
            assert running.stdout is not None
            for line in running.stdout:
                if LEARNING in line and LEARNING not in seen:
                    seen[LEARNING] = time.perf_counter() - started
            ended.set()
            watch.join()
        if running.returncode:
            raise SystemExit(running.returncode)
        seen["all"] = time.perf_counter() - started
    return seen


def _watch(started: float, seen: dict[str, float], ended: threading.Event) -> None:
    before = {folder.name for folder in Path("/proc").glob("[0-9]*")}
    while not ended.wait(0.1):
        for folder in Path("/proc").glob("[0-9]*"):
            if folder.name in before:
                continue
            try:
                line = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has ended meanwhile
            for stage, part in STAGES.items():
                if part in line and str(os.getpid()) != folder.name:
                    seen.setdefault(stage, time.perf_counter() - started)


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    runs = [measure() for _ in range(chosen.times)]
    say({stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}, chosen.json)


if __name__ == "__main__":
    main()
