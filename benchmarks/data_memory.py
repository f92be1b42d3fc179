"""How much memory the processes of the clients take to hold their data.

    python benchmarks/data_memory.py --data cifar10-subset.npz

As in a simulation, a few processes stand for many clients: each makes the data of one client after
the other, as for one message each. Reported is by how much the memory of all processes together
rises above what it is before any data is there, what they share counted once (proportional set
size), and how long the first client of a process waits for its data. Once as it is, with decoded
data mapped from files that all share, and once with a copy in each process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import say

# Run as a script, the project's root is not on the path.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CLIENTS = (5, 50, 500)


def work(data: str, number: int, processes: int, clients: int) -> None:
    """Be one of the processes: answer for every so-manieth client, when told to."""
    from split_unlearning.simulations import client_app
    from split_unlearning.simulations.config import RunConfig

    config = RunConfig.from_mapping({"dataset": f"npz:{data}", "distribution": "iid"})
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    waited = 0.0
    for client in range(number, clients, processes):
        client_app._holding(config, client, clients)
        waited = waited or time.perf_counter() - started
    print(json.dumps([waited, time.perf_counter() - started]), flush=True)
    sys.stdin.readline()


def proportional(pid: int) -> int:
    """Return the memory of a process, in bytes; what others map too counts in parts."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def measure(data: str, processes: int, clients: int, cache: str) -> dict[str, float]:
    """Run the processes, all at once, and compare before and after."""
    command = [sys.executable, "-W", "ignore", __file__, "--data", data, "--worker"]
    running = [
        subprocess.Popen(
            [*command, str(number), str(processes), str(clients)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": cache},
        )
        for number in range(processes)
    ]

    def hear() -> list[str]:
        return [one.stdout.readline() for one in running if one.stdout]

    def total() -> int:
        return sum(proportional(one.pid) for one in running)

    def tell() -> None:
        for one in running:
            assert one.stdin
            one.stdin.write("\n")
            one.stdin.flush()

    hear()
    before = total()
    tell()
    seconds = [json.loads(line) for line in hear()]
    after = total()
    tell()
    for one in running:
        one.wait()
    return {
        "clients": clients,
        "processes": processes,
        "before_bytes": before,
        "data_bytes": after - before,
        "first_client_seconds": max(first for first, _ in seconds),
        "all_clients_seconds": max(whole for _, whole in seconds),
    }


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a numpy.savez file")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--worker", type=int, nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    data = str(chosen.data.absolute())
    if chosen.worker:
        work(data, *chosen.worker)
        return
    figures: dict[str, Any] = {"data": chosen.data.name}
    with tempfile.TemporaryDirectory() as folder:
        # A file where the cache should be: nothing can be kept, every process has a copy.
        nowhere = Path(folder) / "file"
        nowhere.touch()
        # Decoded once beforehand.
        measure(data, 1, 5, folder)
        for name, cache in (("shared", folder), ("a_copy_each", str(nowhere))):
            figures[name] = [
                measure(data, chosen.processes, clients, cache) for clients in chosen.clients
            ]
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
