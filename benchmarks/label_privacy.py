"""What the server can tell of SplitWiper+'s masked labels, and what hiding them costs.

    split-unlearning benchmark figure-6-8 --scale small --out FOLDER
    python benchmarks/label_privacy.py FOLDER --markdown table.md --plot picture.svg

The benchmark learns with every expansion, way of copying and noise, lets every attack loose on what
the server received, and beside them runs SplitWiper and vanilla with its label-privacy baselines.
This puts each setting into one row, mean over the seeds: accuracy on all test samples, bytes
uploaded in learning over SplitWiper's, ε for all releases of a record, and of each attack the share
of real labels whose masked labels it found exactly (perfect) or in one cluster (inclusive).

``--plot`` draws them with matplotlib, which the project itself does not need.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Runs = dict[str, list[dict[str, Any]]]
"""What learning measured, of runs that differ in their seed, by the name of their setting."""


def name_of(config: Mapping[str, Any]) -> str:
    """Return what a setting is called in the table."""
    if config["strategy"] == "splitwiper-plus":
        copies = config["copies"] if config["expansion"] != "1" else "one copy"
        noise = f"ε {config['epsilon']} {config['privacy-unit']}"
        noise = "no noise" if config["epsilon"] == "none" else noise
        return f"γ {config['expansion']}, {copies}, {noise}"
    words = [config["strategy"]]
    if config["label-mechanism"] != "none":
        words.append(f"{config['label-mechanism']}, ε {config['label-epsilon']}")
    if config["gradient-noise"] == "marvell":
        words.append(f"marvell, s {config['gradient-noise-power']:g}")
    elif config["gradient-noise"] != "none":
        words.append(config["gradient-noise"])
    return ", ".join(words)


def read(folder: Path) -> Runs:
    """Read what a benchmark's cells measured in learning, in the order of its grid."""
    described = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    runs: Runs = {}
    for cell in described["cells"]:
        path = folder / "cells" / cell / "result.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            runs.setdefault(name_of(result["config"]), []).append(result["phases"][0])
    return runs


def row(name: str, phases: Sequence[dict[str, Any]], plain_bytes: float) -> dict[str, Any]:
    """Return the means over the seeds of one setting."""
    accuracies = [phase["accuracy"]["retained"] for phase in phases]
    sent = fmean(sum(client["bytes_up"] for client in phase["clients"]) for phase in phases)
    privacy = phases[0]["privacy"]
    figures = {
        "setting": name,
        "accuracy": fmean(accuracies),
        "deviation": stdev(accuracies) if len(accuracies) > 1 else None,
        "upload": sent / plain_bytes,
        "epsilon": privacy["epsilon"] if privacy else None,
        "attacks": {},
    }
    if phases[0].get("label_matching"):
        by_seed = [
            {one["name"]: one for one in phase["label_matching"]["attacks"]} for phase in phases
        ]
        figures["attacks"] = {
            name: {
                score: fmean(attacks[name][score] for attacks in by_seed)
                for score in ("perfect", "inclusive")
            }
            for name in by_seed[0]
        }
    return figures


PAPERS = ("kmeans elbow", "birch elbow", "kmeans q leaked", "birch q leaked")


def strongest(figures: Mapping[str, Any], leaked: bool) -> tuple[str, float]:
    """Return the attack with the largest perfect accuracy, told Q or not."""
    perfect = {
        name: scores["perfect"]
        for name, scores in figures["attacks"].items()
        if leaked or not name.endswith("q leaked")
    }
    return max(perfect.items(), key=lambda item: item[1])


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table."""
    head = ["setting", "accuracy", "upload", "total ε", *(f"{name} P / I" for name in PAPERS)]
    head += ["strongest without Q", "strongest"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for figures in rows:
        spread = "" if figures["deviation"] is None else f" ± {100 * figures['deviation']:.1f}"
        cells = [
            figures["setting"],
            f"{100 * figures['accuracy']:.1f}{spread}",
            f"{figures['upload']:.2f}",
            "-" if figures["epsilon"] is None else f"{figures['epsilon']:.3g}",
        ]
        if figures["attacks"]:
            for name in PAPERS:
                scores = figures["attacks"][name]
                cells.append(f"{scores['perfect']:.2f} / {scores['inclusive']:.2f}")
            for leaked in (False, True):
                name, perfect = strongest(figures, leaked)
                cells.append(f"{perfect:.2f} ({name})")
        else:
            cells += ["-"] * 6
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Plot accuracy against what the strongest attack finds, one mark a setting."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    marks = {"replicate": "o", "partition": "s", "modes": "^"}
    for axis, leaked in zip(axes, (False, True), strict=True):
        for copies, mark in marks.items():
            some = [one for one in rows if f", {copies}," in one["setting"]]
            x = [strongest(one, leaked)[1] for one in some]
            y = [100 * one["accuracy"] for one in some]
            axis.scatter(x, y, marker=mark, alpha=0.6, label=copies)
        plain = next(one for one in rows if one["setting"] == "splitwiper")
        axis.axhline(100 * plain["accuracy"], color="grey", linestyle=":", label="splitwiper")
        axis.set_xlabel("perfect accuracy of the strongest attack")
        axis.set_title("the server is told Q" if leaked else "the server is not told Q")
        axis.set_xlim(-0.05, 1.05)
    axes[0].set_ylabel("accuracy, %")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Read, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the benchmark")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    runs = read(chosen.folder)
    plain = fmean(
        sum(client["bytes_up"] for client in phase["clients"]) for phase in runs["splitwiper"]
    )
    rows = [row(name, phases, plain) for name, phases in runs.items()]
    table = as_markdown(rows)
    print(table)
    if chosen.markdown:
        chosen.markdown.write_text(table, encoding="utf-8")
    if chosen.plot:
        draw(rows, chosen.plot)


if __name__ == "__main__":
    main()
