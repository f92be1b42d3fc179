"""Many clients: SplitWiper's round against plain Flower's, and how time and memory grow.

    python benchmarks/clients.py --data mnist-subset.npz

For each number of clients, of ten samples each, one after the other: the app as a user starts it,
which learns and forgets one label; and plain Flower, in which as many clients do the same
computation and upload the same. Reported are the seconds of the round in which clients train and
upload, their ratio, the seconds of learning and of forgetting, and the memory of the server's
processes: the one in which the ServerApp and Flower's own bookkeeping of all clients are, and the
server segment's. The exponent is the slope of a straight line through the logarithms.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from figures import say

ROOT = Path(__file__).resolve().parents[1]
PLAIN = Path(__file__).with_name("plain_flower.py")
EPOCHS = 10
SAMPLES = 10
"""Of each client."""
SERVER_PROCESSES = {"app": "flwr-simulation", "segment": "ray::_Host"}


def plain(data: Path, clients: int) -> float:
    """Return the seconds of a round in plain Flower."""
    sizes = f"{clients} {EPOCHS} {SAMPLES}"
    chosen = {"PLAIN_FLOWER_DATA": str(data), "PLAIN_FLOWER_SIZES": sizes}
    done = subprocess.run(
        [sys.executable, str(PLAIN)],
        env={**os.environ, **chosen},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return float(json.loads(lines[-1])["round_seconds"])


def app(data: Path, clients: int, strategy: str, out: Path) -> dict[str, Any]:
    """Run the app; return its result, and the largest memory of the server's processes in bytes."""
    command = [sys.executable, "-c", "from simulations.cli import main; main()", "run"]
    command += ["--strategy", strategy, "--clients", str(clients), "--out", str(out)]
    settings = {
        "dataset": f"npz:{data}",
        "distribution": "iid",
        "samples": clients * SAMPLES,
        "pretrain-epochs": EPOCHS,
        "server-epochs": 1,
        "forget": "class:2",
    }
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    most = dict.fromkeys(SERVER_PROCESSES, 0)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(running.pid, most, ended))
        watch.start()
        failed = running.wait()
        ended.set()
        watch.join()
    if failed:
        raise SystemExit(failed)
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return {"phases": result["phases"], "memory": most}


def _watch(root: int, most: dict[str, int], ended: threading.Event) -> None:
    """Take down the largest resident memory of the processes below one, by what they are."""
    while not ended.wait(0.5):
        for name, resident in _below(root):
            for kind, part in SERVER_PROCESSES.items():
                if part in name:
                    most[kind] = max(most[kind], resident)


def _below(root: int) -> list[tuple[str, int]]:
    """Return command line and resident memory in bytes of all processes that one has started."""
    parents, found = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
            pages = int((folder / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue  # it has ended meanwhile
        parents[int(folder.name)] = int(stat[1])
        found[int(folder.name)] = command, pages * os.sysconf("SC_PAGE_SIZE")

    def belongs(pid: int) -> bool:
        while pid in parents and pid != root:
            pid = parents[pid]
        return pid == root

    return [found[pid] for pid in found if belongs(pid)]


def seconds(phase: Mapping[str, Any]) -> float:
    """Return how long a phase took: all questions to clients, and the server's training."""
    asked = phase["timing"]["questions"].values()
    return float(sum(one["seconds"] for one in asked) + phase["server"]["train_seconds"])


def exponent(clients: list[int], values: list[float]) -> float:
    """Return the slope of the logarithm of values over that of clients."""
    return float(np.polyfit(np.log(clients), np.log(values), 1)[0])


def grown(rows: list[Mapping[str, Any]], name: str) -> float:
    """Return by how much a figure grows a client, from the fewest to the most."""
    first, last = rows[0], rows[-1]
    return float((last[name] - first[name]) / (last["clients"] - first["clients"]))


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="an npz data set")
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--strategy", default="splitwiper")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    data = chosen.data.absolute()
    rows: list[dict[str, Any]] = []
    for clients in chosen.clients:
        row: dict[str, Any] = {"clients": clients}
        with tempfile.TemporaryDirectory() as folder:
            found = app(data, clients, chosen.strategy, Path(folder) / "out")
        learn, unlearn = found["phases"]
        row["learn_seconds"], row["unlearn_seconds"] = seconds(learn), seconds(unlearn)
        row |= {f"{kind}_bytes": size for kind, size in found["memory"].items()}
        if chosen.strategy == "splitwiper":
            row["round_seconds"] = learn["timing"]["questions"]["pretrain"]["seconds"]
            row["plain_round_seconds"] = plain(data, clients)
            row["round_ratio"] = row["round_seconds"] / row["plain_round_seconds"]
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    counts = [row["clients"] for row in rows]
    figures: dict[str, Any] = {"data": data.name, "strategy": chosen.strategy, "rows": rows}
    figures["learn_exponent"] = exponent(counts, [row["learn_seconds"] for row in rows])
    figures["server_bytes_a_client"] = {
        kind: grown(rows, f"{kind}_bytes") for kind in SERVER_PROCESSES
    }
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
