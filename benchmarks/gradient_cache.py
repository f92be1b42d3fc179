"""Memory and seconds of a projection through a cache of gigabytes, against the reading of it.

A cache of random gradients is written to a folder (11 million parameters, 2.2 GB by default). Then
new processes, each with nothing of it in the page cache, take it up and

- ``read``: read every file of gradients once, in order, as it lies on disk;
- ``decode``: go through the steps as the projection does, and do nothing with them;
- ``project``: run the recursion, every fifth step forgotten;
- ``rewrite``: the same, and make of the cache what a commit makes of it.

Printed are seconds a step, and the largest memory of the process beyond what it had before it
opened the cache: *own* memory, which mapped files are not part of, in gradients of d float32.

    python benchmarks/gradient_cache.py --folder /somewhere/with/room
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from split_unlearning.unlearning.gradient_projection.cache import GradientCache
from split_unlearning.unlearning.gradient_projection.rewriting import Rewriting, leave_out
from split_unlearning.unlearning.gradient_projection.sequential import (
    SequentialProjection,
    coefficients_of,
)
from split_unlearning.unlearning.gradient_projection.steps import Step
from split_unlearning.unlearning.state_folder import StateFolder

_RUN, _BATCH, _FORGOTTEN_EVERY = "benchmark", 32, 5
_TASKS = ("read", "decode", "project", "rewrite")


def main() -> None:
    """Write a cache, and have each task done by a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=11_000_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--codec", default="float32", choices=["float32", "float16", "int8"])
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--folder", type=Path, help="where the cache is written; it is removed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--task", choices=_TASKS, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.task:
        print(json.dumps(done(told)))
        return
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        size = written(told, Path(folder))
        print(f"{told.codec}: d = {told.parameters:,}, {told.steps} steps, {size / 1e9:.2f} GB")
        rows = {}
        for task in _TASKS:
            own = ["--folder", folder, "--task", task]
            command = [sys.executable, __file__, *sys.argv[1:], *own]
            ended = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[task] = row = json.loads(ended.stdout)
            print(
                f"{task:8} {row['seconds']:.3f} s a step, "
                f"{row['memory'] / (4 * told.parameters):5.1f} gradients of own memory",
                flush=True,
            )
    if told.json:
        told.json.write_text(json.dumps({**vars(told), "bytes": size, "rows": rows}, default=str))


def drawn(parameters: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return one gradient: most of it in one tensor, as in a network with a wide layer."""
    small = parameters // 10
    shapes = {"wide": parameters - 2 * small, "narrow": small, "bias": small}
    return {name: torch.randn(size, generator=generator) for name, size in shapes.items()}


def written(told: argparse.Namespace, folder: Path) -> int:
    """Write the cache; return its size in bytes."""
    files = StateFolder(folder / "state", "server")
    files.begin("written")
    cache = GradientCache(files, _RUN, told.codec)
    generator = torch.Generator().manual_seed(0)
    weights = drawn(told.parameters, generator)
    cache.keep_weights(0, weights, {})
    for number in range(told.steps):
        cache.add(Step(number, 0, _BATCH, 0.01), drawn(told.parameters, generator))
    cache.flush()
    size = cache.bytes
    files.flush()
    files.commit("written")
    return size


def done(told: argparse.Namespace) -> dict[str, float]:
    """Do one task; return its seconds a step and its own memory in bytes."""
    folder = told.folder / "state"
    for file in folder.iterdir():
        opened = os.open(file, os.O_RDONLY)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)
    torch.set_num_threads(1)
    before, largest, ended = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            largest[0] = max(largest[0], own_memory())

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.perf_counter()
    if told.task == "read":
        read(folder)
    else:
        through(told, StateFolder(folder, "server"))
    seconds = time.perf_counter() - started
    ended.set()
    watching.join()
    return {"seconds": seconds / told.steps, "memory": max(0, largest[0] - before)}


def read(folder: Path) -> None:
    """Read the files of gradients, a block at a time."""
    block = bytearray(1 << 20)
    for file in sorted(folder.glob("gradients-*")):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(block):
                pass


def through(told: argparse.Namespace, files: StateFolder) -> None:
    """Go through the cache; opening it and comparing its files with what was written counts."""
    if told.task == "rewrite":
        files.begin("rewritten")
    cache = GradientCache(files, _RUN, told.codec)
    if told.task == "decode":
        for step in cache.steps:
            cache.gradients(step.number)
        return
    moved = coefficients_of(cache.steps, told.momentum)
    _, weights, _ = cache.weights_before(0)
    removed = {name: torch.zeros_like(one) for name, one in weights.items()}
    del weights
    counts = {step.number: _BATCH for step in cache.steps if step.number % _FORGOTTEN_EVERY == 1}
    rewriting = Rewriting(cache, told.momentum) if told.task == "rewrite" else None
    SequentialProjection(
        cache,
        counts,
        dict(enumerate(moved.tolist())),
        removed,
        momentum=told.momentum,
        rewriting=rewriting,
    ).finish()
    if rewriting is not None:
        rewriting.finish()
        leave_out(cache, counts, cache.steps[0].ids, whole_batches=False)
        files.flush()
        files.commit("rewritten")


def own_memory() -> int:
    """Return the memory of this process that no file backs, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("this system does not say how much memory a process has")


if __name__ == "__main__":
    main()
