"""What SISA's slices save SplitWiper, and what they cost it: the curve over their number.

    python benchmarks/slices.py --data /absolute/path/to/cifar10-subset.npz

Every run is the app as a user starts it: clients and server learn in as many slices each, then
forget single samples, one request after the other. A request is about a client in the server's
slice k, and about a sample in that client's own slice k: one request measures both sides. Under the
first seeds (``--timed-seeds``) there is a request in each slice, under the others one in the last
slice; its accuracy is that of learning again without the sample, because forgetting is exact.

For each number of slices is reported:

- what a request costs the server, over its whole learning without slices: for the client placed
  last, averaged over all clients, and by slice. In sample visits, which follow from who holds what
  and how many epochs each step takes, so that no clock and no other work on the machine is in them,
  and in seconds, over the mean of the seeds.
- what a request costs the client, over a request without slices, averaged over the slice touched
  and by slice, in visits and in seconds.
- the accuracy on all test samples, after learning and after the request in the last slice; by how
  many points it differs from that without slices under the same seed, and how far that spreads over
  the seeds. All phases of a run learn from the same samples but for one a request: how far their
  accuracies lie apart shows how much of a difference is chance, and their mean holds less of it.

Samples are dealt evenly (``iid``): every client's request is worth the same. Ten clients make one,
two or five server slices of one size; of four and eight the last ones are larger. The steps' epochs
are rounded down, so that learning takes no more visits than without slices; how many is reported
beside. With other ``--epochs`` the shares differ by a few hundredths.

The defaults take about an hour on two cores that do other work beside; on such a machine read the
visits, not the seconds. With ``--runs`` a run that is there already is not done again.
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
from itertools import accumulate
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

# Run as a script, the project's root is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from figures import say
from subset import cut_down

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.preparation import deal
from split_unlearning.unlearning.exactness import Ids
from split_unlearning.unlearning.slices import dealt, epochs_of, slice_of

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Setting:
    """What all runs have in common.

    Parameters
    ----------
    data : Path
        The data set, cut down.
    folder : Path
        Where each run leaves its result.
    clients : int
        How many.
    epochs, alone : int
        Epochs of the server, and of each client alone; those of several steps follow from them.
    keys : dict
        Further keys of the run config.
    on_clients : int
        Slices of each client; 0 for as many as the server has.
    """

    data: Path
    folder: Path
    clients: int
    epochs: int
    alone: int
    keys: dict[str, Any]
    on_clients: int = 0

    def on_client(self, slices: int) -> int:
        """Return in how many slices clients learn when the server does in `slices`."""
        return self.on_clients or slices


@dataclass
class Part:
    """What one side took.

    Parameters
    ----------
    visits : float
        Sample visits, over those of the whole learning of this side without slices.
    seconds : float
        Of computing, by its own clock.
    """

    visits: float
    seconds: float = 0.0


@dataclass
class Asked:
    """What one request took."""

    slice: int
    client: int
    server: Part
    alone: Part
    accuracy: float = 0.0


@dataclass
class Run:
    """What one run took: learning by the server, then the requests, the last slice's first."""

    slices: int
    seed: int
    learned: Part
    accuracy: float
    requests: list[Asked]

    @property
    def last(self) -> Asked:
        """The request in the last slice."""
        return self.requests[0]

    @property
    def accuracies(self) -> list[float]:
        """Those after learning and after each request."""
        return [self.accuracy, *(request.accuracy for request in self.requests)]


def visits(sizes: Sequence[int], epochs: Sequence[int], first: int = 0) -> int:
    """Return how many samples the steps from `first` on visit.

    Parameters
    ----------
    sizes : sequence of int
        Samples in each slice.
    epochs : sequence of int
        Of each step.
    first : int
        The first slice that a request touches.
    """
    steps = zip(epochs, accumulate(sizes), strict=True)
    return sum(times * seen for times, seen in list(steps)[first:])


def measured(setting: Setting, slices: int, seed: int, touched: Sequence[int]) -> Run:
    """Learn in slices, forget one sample in each slice that is to be touched, count and time it.

    Parameters
    ----------
    setting : Setting
        Of all runs.
    slices : int
        Of the server and of each client.
    seed : int
        Of the run.
    touched : sequence of int
        The slice of each request, one after the other.

    Returns
    -------
    Run
        What learning and each request took, and the accuracy after each.
    """
    config = {**setting.keys, "dataset": f"npz:{setting.data}", "distribution": "iid", "forget": ""}
    config |= {"server-epochs": setting.epochs, "pretrain-epochs": setting.alone, "seed": seed}
    _, plan = deal(RunConfig.from_mapping(config), setting.clients)
    placed = dealt(range(setting.clients), slices)
    held, alone_in = list(plan.train), setting.on_client(slices)

    def on_server() -> list[int]:
        return [sum(len(held[client]) for client in clients) for clients in placed]

    def on_client(client: int) -> Ids:
        # As clients/alone.py has it: a sample's slice follows from its id alone.
        return slice_of(held[client], alone_in, derive_seed(seed, "slices", client))

    on_server_for = epochs_of([*map(len, placed)], setting.epochs)
    alone_for = epochs_of([1] * alone_in, setting.alone)
    whole = sum(on_server()) * setting.epochs
    learned = Part(visits(on_server(), on_server_for) / whole)
    named = f"slices-{slices}" + (f"-{alone_in}" if alone_in != slices else "")
    folder = setting.folder / f"{named}-seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    asked, texts = [], []
    for number in touched:
        client = placed[number][-1]
        touches = min(number, alone_in - 1)
        sample = held[client][on_client(client) == touches][0]
        held[client] = held[client][held[client] != sample]
        inside = np.bincount(on_client(client), minlength=alone_in).tolist()
        alone = visits(inside, alone_for, touches) / (sum(inside) * setting.alone)
        server = visits(on_server(), on_server_for, number) / whole
        asked.append(Asked(number, client, Part(server), Part(alone)))
        file = folder / f"request-{number}.txt"
        file.write_text(f"{sample}\n", encoding="utf-8")
        texts.append(f"ids:{file}")

    config |= {"slices": alone_in, "server-slices": slices, "forget": ";".join(texts)}
    learning, *forgetting = ran(config, setting.clients, folder)["phases"]
    learned.seconds = learning["server"]["train_seconds"]
    for request, phase in zip(asked, forgetting, strict=True):
        request.server.seconds = phase["server"]["train_seconds"]
        request.alone.seconds = phase["clients"][request.client]["train_seconds"]
        request.accuracy = phase["accuracy"]["retained"]
    return Run(slices, seed, learned, learning["accuracy"]["retained"], asked)


def ran(config: Mapping[str, Any], clients: int, folder: Path) -> dict[str, Any]:
    """Return the result of a run, as a user starts it, unless the folder has it already."""
    file = folder / "result.json"
    if file.exists():
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if config.items() <= result["config"].items():
            return result
    command = [sys.executable, "-c", "from simulations.cli import main; main()", "run"]
    command += ["--clients", str(clients), "--out", str(folder), "--overwrite"]
    for key, value in config.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return done


def figures_of(slices: int, runs: Sequence[Run], setting: Setting) -> dict[str, Any]:
    """Return what so many slices save and cost.

    Parameters
    ----------
    slices : int
        Of the server and of each client.
    runs : sequence of Run
        All there are; those without slices, under the same seeds, are what is compared with.
    setting : Setting
        Of all runs.
    """
    unsliced = {run.seed: run for run in runs if run.slices == 1}
    chosen = [run for run in runs if run.slices == slices]
    asked = [request for run in chosen for request in run.requests]
    in_slice = [len(held) for held in dealt(range(setting.clients), slices)]
    # Without slices all requests take the same: their seconds differ by the machine alone.
    whole = fmean(run.learned.seconds for run in unsliced.values())
    alone = fmean(request.alone.seconds for run in unsliced.values() for request in run.requests)

    def by_slice(figure: Callable[[Asked], float]) -> list[float | None]:
        """Return the mean over the requests in each slice; None where there was none."""
        figures = [
            [figure(request) for request in asked if request.slice == number]
            for number in range(slices)
        ]
        return [fmean(some) if some else None for some in figures]

    def mean(shares: list[float | None], weights: Sequence[int] | None = None) -> float | None:
        known = [share for share in shares if share is not None]
        return fmean(known, weights) if len(known) == len(shares) else None

    def on_server(figure: Callable[[Asked], float]) -> dict[str, Any]:
        shares = by_slice(figure)
        return {
            "mean_of_clients": mean(shares, in_slice),
            "client_placed_last": shares[-1],
            "by_slice": shares,
        }

    def on_client(figure: Callable[[Asked], float]) -> dict[str, Any]:
        shares = by_slice(figure)
        return {"mean_of_slices": mean(shares), "by_slice": shares}

    def accuracy(figure: Callable[[Run], float]) -> dict[str, Any]:
        by_seed = [figure(run) for run in chosen]
        points = [100 * (figure(run) - figure(unsliced[run.seed])) for run in chosen]
        return {
            "mean": fmean(by_seed),
            "points_from_unsliced": fmean(points),
            "deviation_of_points": stdev(points) if len(points) > 1 else None,
            "by_seed": by_seed,
        }

    return {
        "slices": slices,
        "clients_in_each_slice": in_slice,
        "epochs_of_each_step": {
            "server": epochs_of(in_slice, setting.epochs),
            "client": epochs_of([1] * setting.on_client(slices), setting.alone),
        },
        "learning": {
            "server_visits": fmean(run.learned.visits for run in chosen),
            "server_seconds": fmean(run.learned.seconds for run in chosen) / whole,
        },
        "server_of_a_request": {
            "visits": on_server(lambda request: request.server.visits),
            "seconds": on_server(lambda request: request.server.seconds / whole),
        },
        "client_of_a_request": {
            "visits": on_client(lambda request: request.alone.visits),
            "seconds": on_client(lambda request: request.alone.seconds / alone),
        },
        "accuracy": {
            "learned": accuracy(lambda run: run.accuracy),
            "after_a_request_in_the_last_slice": accuracy(lambda run: run.last.accuracy),
            "mean_of_all_phases": accuracy(lambda run: fmean(run.accuracies)),
        },
    }


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="an npz data set")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--test-images", type=int, default=4000)
    parser.add_argument("--model", default="vgg")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--slices", default="1,2,4,5,8", help="numbers of slices; 1 is needed")
    parser.add_argument(
        "--client-slices", type=int, default=0, help="by default as many as the server has"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pretrain-epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--precision", default="float32", help="of the server segment")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--timed-seeds", type=int, default=1, help="with a request in each slice")
    parser.add_argument("--runs", type=Path, help="a folder that keeps the runs, to go on from")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    numbers = sorted({1, *map(int, chosen.slices.split(","))})
    keys = {
        "model": chosen.model,
        "batch-size": chosen.batch_size,
        "learning-rate": chosen.learning_rate,
        "momentum": chosen.momentum,
        "precision": chosen.precision,
    }
    started = time.perf_counter()
    runs = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.runs or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / f"{chosen.images}-{chosen.test_images}.npz"
        cut_down(chosen.data, chosen.images, chosen.test_images, data)
        setting = Setting(
            data,
            folder,
            chosen.clients,
            chosen.epochs,
            chosen.pretrain_epochs,
            keys,
            chosen.client_slices,
        )
        for seed in range(chosen.seeds):
            for slices in numbers:
                first = 0 if seed < chosen.timed_seeds else slices - 1
                # The last slice comes first: the accuracy after it is that after one request.
                run = measured(setting, slices, seed, range(slices - 1, first - 1, -1))
                runs.append(run)
                print(f"{time.perf_counter() - started:.0f} s: {run}", file=sys.stderr)
    figures = {
        "images": chosen.images,
        "test_images": chosen.test_images,
        "clients": chosen.clients,
        "epochs": chosen.epochs,
        "pretrain_epochs": chosen.pretrain_epochs,
        "seeds": chosen.seeds,
        "timed_seeds": chosen.timed_seeds,
        **keys,
        "curve": [figures_of(slices, runs, setting) for slices in numbers],
        "seconds_in_all": time.perf_counter() - started,
    }
    say(figures, chosen.json)


if __name__ == "__main__":
    main()
