"""What the server can tell of SplitWiper+'s masked labels, and what hiding them costs.

    python benchmarks/label_privacy.py --data /absolute/path/to/cifar10-subset.npz --runs FOLDER

For each expansion, way of copying, noise and seed one run of the app as a user starts it, which
learns and lets every attack loose on what the server received (``attacks=true``); beside them
SplitWiper, and vanilla with its label-privacy baselines. Labels are dealt out without overlap
(``heterogeneous-labels``), as in the paper's Figures 6 and 8, to five clients.

Reported for each setting, mean over the seeds: accuracy on all test samples, bytes uploaded in
learning over SplitWiper's, ε for all releases of a record, and of each attack the share of real
labels whose masked labels it found exactly (perfect) or in one cluster (inclusive).

With ``--runs`` a run that is there already is not done again. ``--json`` and ``--markdown`` write
the figures, ``--plot`` draws them (with matplotlib, which the project itself does not need).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import say
from subset import cut_down

ROOT = Path(__file__).resolve().parents[1]
COPIES = ("replicate", "partition", "modes")


@dataclass(frozen=True)
class Setting:
    """How labels are hidden in some runs that differ by their seed.

    Parameters
    ----------
    name : str
        What it is called in the table, and its folder.
    keys : dict
        Of the run config.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)


def settings(
    expansions: Sequence[str], epsilons: Sequence[str], clip: float, baselines: bool
) -> Iterator[Setting]:
    """Yield every setting; where ways of copying are the same, one of them."""
    yield Setting("splitwiper", {"strategy": "splitwiper"})
    plus = {"strategy": "splitwiper-plus", "attacks": "true"}
    for expansion, epsilon in product(expansions, epsilons):
        units = ("record", "element") if epsilon != "none" else ("record",)
        for unit, copies in product(units, COPIES if expansion != "1" else COPIES[1:2]):
            keys = {**plus, "expansion": expansion, "copies": copies}
            noise = "no noise"
            if epsilon != "none":
                keys |= {"epsilon": epsilon, "privacy-unit": unit, "clip": clip}
                noise = f"ε {epsilon} {unit}"
            yield Setting(f"γ {expansion}, {copies}, {noise}", keys)
    if not baselines:
        return
    vanilla = {"strategy": "vanilla"}
    yield Setting("vanilla", vanilla)
    for epsilon in ("1", "2", "4", "8"):
        keys = {**vanilla, "label-mechanism": "rr-with-prior", "label-epsilon": epsilon}
        yield Setting(f"vanilla, rr-with-prior, ε {epsilon}", keys)
    yield Setting("vanilla, max-norm", {**vanilla, "gradient-noise": "max-norm"})
    marvell = {**vanilla, "gradient-noise": "marvell", "gradient-noise-power": 1.0}
    yield Setting("vanilla, marvell, s 1", marvell)


def measured(
    setting: Setting, seed: int, common: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Run the app, if it was not run before, and return what its learning measured."""
    out = folder / setting.name.replace(" ", "-").replace(",", "") / f"seed-{seed}"
    result = out / "result.json"
    if not result.exists():
        out.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", "from simulations.cli import main; main()", "run"]
        command += ["--clients", "5", "--out", str(out)]
        for key, value in {**common, **setting.keys, "seed": seed}.items():
            command += ["--set", f"{key}={value}"]
        with (out / "log.txt").open("w") as log:
            subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True)
    phases: list[dict[str, Any]] = json.loads(result.read_text(encoding="utf-8"))["phases"]
    return phases[0]


def row(setting: Setting, phases: Sequence[dict[str, Any]], plain_bytes: float) -> dict[str, Any]:
    """Return the means over the seeds of one setting."""
    accuracies = [phase["accuracy"]["retained"] for phase in phases]
    sent = fmean(sum(client["bytes_up"] for client in phase["clients"]) for phase in phases)
    privacy = phases[0]["privacy"]
    figures = {
        "setting": setting.name,
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
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="an npz data set")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pretrain-epochs", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--expansions", default="1,2,3,1-3")
    parser.add_argument("--epsilons", default="0.1,0.2,1,8,none")
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--at-once", type=int, default=1, help="runs at a time")
    parser.add_argument("--runs", type=Path, required=True, help="a folder that keeps the runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    folder = chosen.runs.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{chosen.images}-{chosen.test_images}.npz"
    if not data.exists():
        cut_down(chosen.data, chosen.images, chosen.test_images, data)
    common = {
        "dataset": f"npz:{data}",
        "model": chosen.model,
        "forget": "",
        "server-epochs": chosen.epochs,
        "pretrain-epochs": chosen.pretrain_epochs,
        "learning-rate": chosen.learning_rate,
    }
    listed = list(
        settings(
            chosen.expansions.split(","),
            chosen.epsilons.split(","),
            chosen.clip,
            not chosen.no_baselines,
        )
    )
    with ThreadPoolExecutor(chosen.at_once) as workers:
        # Seed by seed: what there is when it is cut off is of all settings.
        runs = {
            (setting.name, seed): workers.submit(measured, setting, seed, common, folder)
            for seed in range(chosen.seeds)
            for setting in listed
        }
        phases = {
            setting.name: [runs[setting.name, seed].result() for seed in range(chosen.seeds)]
            for setting in listed
        }
    plain = fmean(
        sum(client["bytes_up"] for client in phase["clients"]) for phase in phases["splitwiper"]
    )
    rows = [row(setting, phases[setting.name], plain) for setting in listed]
    if chosen.markdown:
        chosen.markdown.write_text(as_markdown(rows), encoding="utf-8")
    if chosen.plot:
        draw(rows, chosen.plot)
    named = {name: value for name, value in vars(chosen).items() if not isinstance(value, Path)}
    say({**named, "rows": rows}, chosen.json)


if __name__ == "__main__":
    main()
