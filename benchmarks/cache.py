"""How much memory the server needs to train on a large activation cache.

    python benchmarks/cache.py --gigabytes 2

One process fills a cache with random smashed data, as uploads come in, and trains on it for an
epoch; before, it trains on a cache of a few samples, which takes what the network, PyTorch and one
batch take. Reported is by how much the peak of its resident memory rises above that. The pages of
files that the system keeps in a cache of its own are not the process's: they are given up when
anybody needs memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import say

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from split_unlearning.models.split import smashed_shape
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.segment import LocalSegment
from split_unlearning.strategies.server.setting import SegmentSetting
from split_unlearning.strategies.server.shards import Shards

INPUT_SHAPE, LABELS = (3, 32, 32), 10


def peak_memory() -> int:
    """Return the most memory that was resident since the last call, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    # Linux's way to start the peak anew.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return int(peak.split()[1]) * 1024


def fill(server: LocalSegment, shape: tuple[int, ...], samples: int, clients: int) -> int:
    """Upload random smashed data in chunks of 16 MB; return its size in bytes."""
    rng = np.random.default_rng(0)
    chunk = max(1, int(16e6) // (4 * int(np.prod(shape))))
    for client in range(clients):
        held = samples // clients
        for number, start in enumerate(range(0, held, chunk)):
            ids = np.arange(start, min(start + chunk, held))
            smashed = rng.standard_normal((len(ids), *shape), dtype=np.float32)
            server.call(
                Shards.add, client, number, smashed, rng.integers(LABELS, size=len(ids)), ids
            )
    return server.call(KeptState.bytes_of_caches)


def measure(model: str, gigabytes: float, clients: int, folder: str) -> dict[str, float]:
    """Fill, train, and compare peaks of memory."""
    shape = smashed_shape(model, INPUT_SHAPE, LABELS)
    training = TrainingSettings(batch_size=64, learning_rate=0.01)
    setting = SegmentSetting(model, INPUT_SHAPE, LABELS, training)
    few = LocalSegment(setting)
    fill(few, shape, 640, clients)
    few.call(Shards.train, 0)
    few.close()
    own = peak_memory()
    server = LocalSegment(setting)
    server.call(KeptState.open, folder)
    server.call(KeptState.begin, "benchmark")
    size = fill(server, shape, int(gigabytes * 1e9 / (4 * np.prod(shape))), clients)
    filled = peak_memory()
    started = time.perf_counter()
    server.call(Shards.train, 0)
    seconds = time.perf_counter() - started
    trained = peak_memory()
    server.close()
    return {
        "cache_bytes": size,
        "peak_of_a_small_cache_bytes": own,
        "above_it_while_filling_bytes": filled - own,
        "above_it_while_training_bytes": trained - own,
        "epoch_seconds": seconds,
        "epoch_bytes_a_second": size / seconds,
    }


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--gigabytes", type=float, default=2.0, help="size of the cache, 10^9 bytes"
    )
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "model": chosen.model,
            "clients": chosen.clients,
            **measure(chosen.model, chosen.gigabytes, chosen.clients, folder),
        }
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
