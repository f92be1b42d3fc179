"""All ratios in one table, beside those that were last written down.

    python benchmarks/run_all.py --data cifar10-subset.npz
    python benchmarks/run_all.py --data cifar10-subset.npz --keep    # writes docs/ratios.json

Runs the benchmarks beside this file, smaller than they are by themselves, so that all take a
quarter of an hour on two cores; each compares two things within one run, so that a machine with
other work tells nearly the same as one without. Printed are the ratios as Markdown and JSON, with
what ``docs/ratios.json`` holds and what is aimed at. What one benchmark fails at is a row that says
so, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from link import SIZES
from overhead import SEQUENTIAL

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "docs" / "ratios.json"


@dataclass(frozen=True)
class Ratio:
    """One figure of a benchmark: its name, where it stands, and what is aimed at."""

    name: str
    of: Callable[[Mapping[str, Any]], float]
    aim: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A script beside this one, with its arguments; ``DATA`` stands for the data set."""

    script: str
    arguments: Sequence[str]
    ratios: Sequence[Ratio]


BENCHMARKS = (
    Benchmark(
        "overhead.py",
        ("--data", "DATA", "--images", "640", "--epochs", "4"),
        (
            *(
                Ratio(
                    f"{strategy}, seconds a batch over one PyTorch loop's",
                    lambda found, strategy=strategy: found["one client"][strategy]["ratio_a_batch"],
                    "<= 1.10",
                )
                for strategy in SEQUENTIAL
            ),
            Ratio(
                "vanilla, seconds of a turn beyond its batches",
                lambda found: found["one client"]["vanilla"]["turn_seconds_beyond_batches"],
                "<= 0.15",
            ),
            Ratio(
                "splitfed, clients side by side over one at a time",
                lambda found: found["side by side"]["splitfed"],
                ">= 1.7",
            ),
            Ratio(
                "splitwiper, clients side by side over one at a time",
                lambda found: found["side by side"]["splitwiper"],
                ">= 1.8",
            ),
        ),
    ),
    Benchmark(
        "link.py",
        (),
        tuple(
            Ratio(
                f"link, a round trip of {size} bytes over a raw socket's",
                lambda found, size=size: found[f"{size} bytes"]["ratio"],
                "<= 2",
            )
            for size in SIZES
        ),
    ),
    Benchmark(
        "precision.py",
        ("--models", "vgg", "--steps", "8"),
        (
            Ratio(
                "vgg, samples a second in bfloat16 over float32",
                lambda found: found["vgg, batch 64"]["ratio"],
            ),
        ),
    ),
    Benchmark(
        "clients.py",
        ("--data", "DATA", "--clients", "10", "100"),
        (
            Ratio(
                "100 clients, a round's seconds over plain Flower's",
                lambda found: found["rows"][-1]["round_ratio"],
                "<= 1.2",
            ),
            Ratio(
                "megabytes of the server a client, from 10 to 100",
                lambda found: found["server_bytes_a_client"]["app"] / 1e6,
                "< 2",
            ),
        ),
    ),
    Benchmark(
        "gradient_cache.py",
        ("--parameters", "2000000", "--steps", "30"),
        (
            Ratio(
                "gradient cache, seconds a step of projecting over reading",
                lambda found: (
                    found["rows"]["project"]["seconds"] / found["rows"]["read"]["seconds"]
                ),
                "<= 2",
            ),
        ),
    ),
)


def measure(benchmark: Benchmark, data: Path) -> Mapping[str, Any] | None:
    """Run a benchmark and return its figures; None if it failed, which it has then said."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        arguments = [str(data) if word == "DATA" else word for word in benchmark.arguments]
        command = [sys.executable, str(HERE / benchmark.script), *arguments, "--json", str(figures)]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            return None
        found: Mapping[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
        return found


def as_markdown(found: Mapping[str, float | None], kept: Mapping[str, float]) -> str:
    """Return the table."""
    lines = ["| ratio | now | last | aim |", "|---|---|---|---|"]
    for benchmark in BENCHMARKS:
        for ratio in benchmark.ratios:
            now, last = found[ratio.name], kept.get(ratio.name)
            shown = ["failed" if now is None else f"{now:.2f}"]
            shown.append("-" if last is None else f"{last:.2f}")
            lines.append(f"| {ratio.name} | {' | '.join(shown)} | {ratio.aim or '-'} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write down what was measured if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="an npz data set")
    parser.add_argument("--keep", action="store_true", help=f"write {KEPT.name}")
    chosen = parser.parse_args()
    found: dict[str, float | None] = {}
    started = time.monotonic()
    for benchmark in BENCHMARKS:
        figures = measure(benchmark, chosen.data.absolute())
        for ratio in benchmark.ratios:
            found[ratio.name] = None if figures is None else ratio.of(figures)
        print(f"{benchmark.script}: {'failed' if figures is None else 'done'}", file=sys.stderr)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes", file=sys.stderr)
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    print(as_markdown(found, kept))
    print(json.dumps(found, indent=2))
    failed = None in found.values()
    if chosen.keep and not failed:
        KEPT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
