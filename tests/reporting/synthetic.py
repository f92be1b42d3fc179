"""Folders as `split-unlearning benchmark` leaves them, made up."""

from __future__ import annotations

import json

from split_unlearning.reporting.published.conditions import CLAIMS
from tests import made_up

ENVIRONMENT = {"python": "3.11", "flwr": "1.41.0", "torch": "2.9", "processor_count": 2}


def client(number, requested=False, seconds=0.0, up=0, down=0, messages=0, **more):
    crossed = made_up.traffic(up, down, messages)
    return made_up.client(number, requested, train_seconds=seconds, **crossed, **more)


def phase(task=0, request=None, forgotten=1.0, retained=0.9, clients=None, per_task=None, **more):
    """Return a phase of a result; the first client is who asks."""
    asked = {"seconds": 1.0, "up": 1000, "down": 500, "messages": 2}
    made = made_up.phase(
        (request or "class:bird") if task else None,
        forgotten,
        retained,
        clients or [client(0, True, **asked), client(1, **asked)],
        **{"server": made_up.server(2.0, 0), **more},
    )
    made["accuracy"]["per_task"] = per_task or {"digits": 0.5}
    return {**made, "task": task}


def result(*phases, distribution=None, **config):
    settings = {
        "model": "cnn",
        "forget": "class:bird",
        "pretrain-epochs": 10,
        "server-epochs": 30,
        "expansion": "3",
        "copies": "modes",
        "epsilon": "none",
        "seed": 0,
    }
    made = made_up.result(
        *(list(phases) or [phase(), phase(1, forgotten=0.0)]),
        config={**settings, **config},
        distribution=distribution,
    )
    return {**made, "environment": {**made["environment"], **ENVIRONMENT}}


class Bench:
    """Writes a benchmark's folder, cell by cell."""

    def __init__(self, folder, **about):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        known = {
            "schema_version": 1,
            "name": "made-up",
            "title": "Made up",
            "scale": "full",
            "reduced": [],
            "axes": ["strategy", "unlearning"],
            "claims": list(CLAIMS),
            "command": "split-unlearning benchmark made-up.toml --out made-up",
            "environment": {"machine": "none"},
        }
        self.write("benchmark.json", {**known, **about})

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def cell(self, *phases, metrics=None, clients=2, seed=0, distribution=None, **coordinates):
        """Write a cell that is done; coordinates are spelled with underscores."""
        where = {key.replace("_", "-"): value for key, value in coordinates.items()}
        name = self.describe(where, seed, clients=clients)
        self.write(
            f"cells/{name}/result.json",
            result(*phases, distribution=distribution, **where, seed=seed),
        )
        if metrics is not None:
            self.write(f"cells/{name}/metrics.json", {"schema_version": 1, **metrics})
        return name

    def describe(self, where, seed, **more):
        """Write a cell.json, and return the cell's id."""
        name = more.pop("id", None) or f"cell-{len(list(self.folder.glob('cells/*'))):03}"
        known = {
            "schema_version": 1,
            "id": name,
            "clients": 2,
            "coordinates": where,
            "seed": seed,
            "status": "done",
            "error": "",
            "seconds": 1.5,
            "role": "target",
        }
        self.write(f"cells/{name}/cell.json", {**known, **more})
        return name


def matching(attacks):
    """Return what label matching found, of the results of its attacks."""
    strongest = attacks[0]["name"]
    return {"attacks": attacks, "strongest": strongest, "vanished_are_one_label": None}


def membership(hit_rate=0.5, auc=0.5, roc=True):
    found = {
        "hit_rate": hit_rate,
        "false_positive_rate": 0.5,
        "auc": auc,
        "tpr_at_1_percent_fpr": 0.02,
        "members": 40,
        "non_members": 20,
    }
    curve = {
        "false_positive_rate": [0.0, 0.1, 0.5, 1.0],
        "true_positive_rate": [0.0, 0.2, auc, 1.0],
    }
    return {**found, "roc": curve} if roc else found


def metrics(*, reference=None, task=1, **phase_of):
    """Return a metrics.json with one phase."""
    return {"reference": reference, "phases": [{"task": task, "phase": "unlearn", **phase_of}]}
