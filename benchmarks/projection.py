"""How well gradient projection forgets, beside retraining and the other methods.

    python benchmarks/projection.py --data /absolute/path/to/fashion-mnist-subset.npz

Five clients (``iid``) hold some images between them and hand the client segment on. Forgotten are

- ``class``: all images of one label;
- ``tenth``, ``half``, ``most``: a tenth, half, nine tenths of the images of that label;
- ``client``: all images of one client;
- ``poisoner``: all images of one client, which alone holds the images of ``backdoor``;
- ``backdoor``: a twentieth of all images, which have a white square in a corner and a wrong label.

Every method but retraining goes on from one and the same learning, which is kept. Reported for each
method, as a mean over the seeds and, where there are several, how far apart the seeds lie:

- forgotten: accuracy on the test images of the label; of a backdoor, how often the square makes a
  test image that label; of ``client`` accuracy on its images, which others are like: retraining
  has them right as often as test images;
- test: accuracy on all test images (of ``class``: on those of the other labels);
- membership: area under the curve of telling forgotten images from test images of their kind by
  their loss; 0.5 for who cannot;
- distance: mean Jensen-Shannon divergence of the outputs on the test images from those of
  retraining, in bits;
- evaluations: gradients of samples that were taken on the server to forget, over those of
  retraining;
- seconds: of computing, on the server and on all clients, over those of retraining;
- cache: bytes of the server's gradient cache.

`--codecs` learns once more for each smaller codec of the cache; in ``poisoner``, where batches are
forgotten as a whole or not at all, it can be a sketch. Networks, epochs and step size can
be chosen; with the defaults a seed of a scenario takes a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from figures import say
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import roc_auc_score

from split_unlearning.models.split import Model, segment_with
from split_unlearning.simulations.client_app import ContextStore
from split_unlearning.simulations.data.backdoor import triggered
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.loading import Dataset, load
from split_unlearning.simulations.session.session import Session
from split_unlearning.strategies.script import Script
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.link import ServerLink
from tests.local_grid import LocalRun, client_of, dealt

Weights = Mapping[str, torch.Tensor]

CLIENTS, LABEL = 5, 2
PARTS = {"tenth": 0.1, "half": 0.5, "most": 0.9}
PROJECTION = {"strategy": "gradient-projection", "unlearning": "gradient-projection"}
PAPER = {"strategy": "gradient-projection", "unlearning": "gradient-projection-paper"}
METHODS: dict[str, dict[str, Any]] = {
    # Retraining is what others are compared with; the projection's learning has all gradients.
    "retrain": {"strategy": "vanilla", "unlearning": "retrain"},
    "projection": PROJECTION,
    "original": {"strategy": "vanilla", "unlearning": "none"},
    "fine-tune": {"strategy": "vanilla", "unlearning": "fine-tune"},
    "ascent": {"strategy": "vanilla", "unlearning": "gradient-ascent"},
    "distillation": {"strategy": "vanilla", "unlearning": "distillation"},
    **{
        f"paper, {variant}": {**PAPER, "projection_variant": variant}
        for variant in ("none", "raw", "pca", "gs", "gs-noproj", "pca-gs")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="absolute path of an npz file, or digits")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--fine-tune-share", type=float, default=0.1)
    parser.add_argument("--codecs", nargs="*", default=[], help="float16, int8, sketch")
    scenarios = ["class", "client", *PARTS, "backdoor", "poisoner"]
    parser.add_argument("--scenarios", nargs="+", default=scenarios, choices=scenarios)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    name = arguments.data if arguments.data == "digits" else f"npz:{arguments.data}"
    methods = dict(METHODS)
    for codec in arguments.codecs:
        whole = {"shares": "whole"} if codec == "sketch" else {}
        methods[f"projection, {codec}"] = {**PROJECTION, "cache_codec": codec, **whole}
    figures = {}
    for scenario in arguments.scenarios:
        rows: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
        for seed in range(arguments.seeds):
            for method, row in one_seed(name, scenario, seed, methods, arguments).items():
                rows[method].append(row)
        for method, found in rows.items():
            figures[f"{scenario}: {method}"] = {
                key: {
                    "mean": round(fmean(row[key] for row in found), 3),
                    "deviation": round(stdev(row[key] for row in found), 3)
                    if len(found) > 1
                    else None,
                }
                for key in found[0]
            }
            means = {key: value["mean"] for key, value in figures[f"{scenario}: {method}"].items()}
            print(f"{scenario}: {method}: {means}", flush=True)
    say(figures, arguments.json)


def one_seed(
    name: str,
    scenario: str,
    seed: int,
    methods: Mapping[str, Mapping[str, Any]],
    arguments: argparse.Namespace,
) -> dict[str, dict[str, float]]:
    """Run every method on one scenario; return its figures."""
    data, forgotten, probe = planted(load(name), scenario, seed, arguments.images)
    drawn = np.random.default_rng(seed).permutation(len(data.y_train))
    parts = [np.sort(part) for part in np.array_split(drawn, CLIENTS)]
    if scenario == "poisoner":
        others = np.setdiff1d(drawn, forgotten, assume_unique=True)
        parts = [np.sort(part) for part in np.array_split(others, CLIENTS)]
        parts[0] = np.union1d(parts[0], forgotten)
    if scenario in ("client", "poisoner"):
        forgotten = parts[0]
    tests = tuple(np.array_split(np.arange(len(data.y_test)), CLIENTS))
    found, reference, whole = {}, None, (1, 1.0)
    with tempfile.TemporaryDirectory() as folder, dealt(data, Plan(tuple(parts), tests)):
        ids = Path(folder) / "ids.txt"
        ids.write_text("\n".join(map(str, forgotten)), encoding="utf-8")
        learned: dict[str, Learned] = {}
        for method, settings in methods.items():
            codec = settings.get("cache_codec", "float32")
            goes_on = settings["unlearning"] != "retrain"
            if goes_on and codec not in learned:
                learned[codec] = Learned(Path(folder) / codec)
            run, evaluations = carried_out(
                learned[codec] if goes_on else None,
                forget=f"ids:{ids}",
                client_sync="handoff",
                model=arguments.model,
                server_epochs=arguments.epochs,
                learning_rate=arguments.learning_rate,
                momentum=arguments.momentum,
                fine_tune_share=arguments.fine_tune_share,
                seed=seed,
                **settings,
                # As long as the fine-tuning of the authors' projection.
                **fine_tuned(settings, arguments.epochs),
            )
            learned_by = run.client_state(0), run.server_state
            row, outputs = measured(learned_by, arguments.model, data, scenario, forgotten, probe)
            phase = run.phases[-1]
            parties = [phase["server"], *phase["clients"]]
            seconds = sum(party["train_seconds"] for party in parties)
            if reference is None:
                reference, whole = outputs, (evaluations, seconds)
            divergences = jensenshannon(outputs, reference, axis=1, base=2) ** 2
            found[method] = {
                **row,
                "distance": float(np.nan_to_num(divergences).mean()),
                "evaluations": evaluations / whole[0],
                "seconds": seconds / whole[1],
                "cache_mb": phase["server"]["cache_bytes"] / 1e6,
            }
            print(f"  {scenario}, seed {seed}, {method}: {found[method]}", flush=True)
    return found


class Learned:
    """What a run has learned, with every gradient of it, for others to forget from.

    Parameters
    ----------
    folder : Path
        Where the server's part is kept; what is there by then was kept by the first run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients: dict[int, dict[str, bytes]] = {}


class Continued(LocalRun):
    """A run that learns, and keeps what it learned, or goes on from what another one has kept."""

    def __init__(self, learned: Learned, **settings: Any) -> None:
        self.learned = learned
        super().__init__(CLIENTS, **settings)

    def _run(self, session: Session) -> None:
        learn, server, kept = session.strategy.learn, session.server, self.learned

        def first() -> Script:
            server.call(KeptState.open, str(kept.folder))
            server.call(KeptState.begin, "learning")
            yield from learn()
            server.call(KeptState.seal)
            server.call(KeptState.commit, "learning")
            for node, context in self.grid.contexts.items():
                kept.clients[client_of(node)] = dict(ContextStore(context))
            server.call(KeptState.begin, "forgetting")

        def again() -> Script:
            copy = kept.folder.with_name("again")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(kept.folder, copy)
            server.call(KeptState.open, str(copy))
            server.call(KeptState.begin, "forgetting")
            for node, context in self.grid.contexts.items():
                ContextStore(context).update(kept.clients[client_of(node)])
            yield from ()

        with patch.object(session.strategy, "learn", again if kept.clients else first):
            super()._run(session)


def fine_tuned(settings: Mapping[str, Any], epochs: int) -> dict[str, int]:
    """Return the epochs of the methods that have keys for them."""
    if settings["unlearning"] == "fine-tune":
        return {"fine_tune_epochs": max(1, epochs // 5)}
    if settings["unlearning"] == "gradient-ascent":
        return {"ascent_epochs": 1, "fine_tune_epochs": max(1, epochs // 10)}
    if settings["unlearning"] == "distillation":
        return {"distillation_epochs": max(1, epochs // 5)}
    return {}


def planted(
    data: Dataset, scenario: str, seed: int, images: int
) -> tuple[Dataset, NDArray[np.int64], Dataset]:
    """Return some of the images, the ids of those to forget, and a data set to probe with."""
    drawn = np.random.default_rng(1000 + seed)
    some = drawn.permutation(len(data.y_train))[:images]
    x, y = data.x_train[some].copy(), data.y_train[some].copy()
    if scenario in ("backdoor", "poisoner"):
        wrong = np.flatnonzero(y != LABEL)
        forgotten = np.sort(drawn.choice(wrong, images // 20, replace=False))
        x[forgotten], y[forgotten] = marked(x[forgotten], data.largest), LABEL
        probe = dataclasses.replace(data, x_test=marked(data.x_test, data.largest))
    else:
        forgotten = np.flatnonzero(y == LABEL)
        if scenario in PARTS:
            some = round(PARTS[scenario] * len(forgotten))
            forgotten = np.sort(drawn.choice(forgotten, some, replace=False))
        probe = data
    return dataclasses.replace(data, x_train=x, y_train=y), forgotten, probe


def marked(images: NDArray[Any], largest: float) -> NDArray[Any]:
    """Return the images, as they are stored, with the trigger that a run with a backdoor plants."""
    white = triggered(torch.full(images.shape, -1.0)).numpy() > 0
    return np.where(white, images.dtype.type(largest), images)


def carried_out(learned: Learned | None, **settings: Any) -> tuple[LocalRun, int]:
    """Run the app; return the run and how many samples' gradients the server took to forget.

    With `learned` it goes on from what is there, or, if it is the first, leaves it there.
    """
    answer, taken = ServerLink.answer, []

    def counted(link: Any, caller: Any, tensors: Any, fields: Any) -> Any:
        if caller.phase == "unlearn":
            taken.append(len(tensors["smashed"]))
        return answer(link, caller, tensors, fields)

    quiet = StringIO()
    with (
        patch.object(ServerLink, "answer", counted),
        redirect_stdout(quiet),
        redirect_stderr(quiet),
    ):
        if learned is None:
            return LocalRun(CLIENTS, **settings), sum(taken)
        return Continued(learned, **settings), sum(taken)


def measured(
    weights: tuple[Weights, Weights],
    model: Model,
    data: Dataset,
    scenario: str,
    forgotten: NDArray[np.int64],
    probe: Dataset,
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return what is to be known of client and server segment, and their outputs on test images."""
    shape = (model, data.input_shape, data.num_classes)
    client = segment_with("client", *shape, weights[0])
    server = segment_with("server", *shape, weights[1]).eval()

    def outputs(samples: tuple[torch.Tensor, torch.Tensor]) -> tuple[NDArray[np.float64], Any]:
        with torch.no_grad():
            logits = torch.cat([server(client(part)) for part in samples[0].split(500)])
        return logits.double().softmax(1).numpy(), samples[1].numpy()

    everything = np.arange(len(data.y_test))
    clean, labels = outputs(data.test(everything))
    members, learned = outputs(data.train(forgotten))
    probed, expected = outputs(probe.test(everything))
    if scenario in ("backdoor", "poisoner"):
        probed, expected = probed[labels != LABEL], np.full((labels != LABEL).sum(), LABEL)
    elif scenario != "client":
        probed, expected = probed[labels == LABEL], labels[labels == LABEL]
    judged, right = (members, learned) if scenario == "client" else (probed, expected)
    # High where the loss is low, of forgotten images and of test images of their kind.
    confidence = np.concatenate([_of(members, learned), _of(probed, expected)])
    is_member = np.repeat([1, 0], [len(members), len(probed)])
    kept = labels != LABEL if scenario == "class" else np.ones(len(labels), dtype=bool)
    return {
        "forgotten": float((judged.argmax(1) == right).mean()),
        "test": float((clean.argmax(1) == labels)[kept].mean()),
        "membership": float(roc_auc_score(is_member, confidence)),
    }, clean


def _of(probabilities: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probability of each row's own label."""
    return probabilities[np.arange(len(labels)), labels]


if __name__ == "__main__":
    main()
