"""Folders as `split-unlearning benchmark` leaves them, made up."""

from __future__ import annotations

import json

from split_unlearning.reporting.published.conditions import CLAIMS

LABELS = ("airplane", "bird", "cat")
ENVIRONMENT = {"python": "3.11", "flwr": "1.41.0", "torch": "2.9", "processor_count": 2}


def client(number, requested=False, seconds=0.0, up=0, down=0, messages=0, **more):
    return {
        **more,
        "client": number,
        "requested": requested,
        "train_seconds": seconds,
        "bytes_up": up,
        "bytes_down": down,
        "messages": messages,
        "transmission_seconds": (up + down) * 8e-8,
        "transmission_seconds_up": up * 8e-8,
        "evaluation": {},
    }


def phase(task=0, request=None, forgotten=1.0, retained=0.9, clients=None, per_task=None, **more):
    """Return a phase of a result; the first client is who asks."""
    asked = {"seconds": 1.0, "up": 1000, "down": 500, "messages": 2}
    return {
        "task": task,
        "phase": "unlearn" if task else "learn",
        "request": request if request or not task else "class:bird",
        "samples": 10 if task else 0,
        "accuracy": {
            "unlearned": forgotten,
            "retained": retained,
            "per_label": dict.fromkeys(LABELS, 0.5),
            "per_client": {"0": 0.5, "1": 0.5},
            "per_task": per_task or {"digits": 0.5},
        },
        "clients": clients or [client(0, True, **asked), client(1, **asked)],
        "server": {"train_seconds": 2.0, "cache_bytes": 0},
        "label_matching": None,
        "membership": None,
        **more,
    }


def result(*phases, distribution=None, **config):
    settings = {
        "strategy": "splitwiper",
        "unlearning": "retrain",
        "dataset": "digits",
        "distribution": "iid",
        "model": "cnn",
        "forget": "class:bird",
        "pretrain-epochs": 10,
        "server-epochs": 30,
        "expansion": "3",
        "copies": "modes",
        "epsilon": "none",
        "bandwidth-mbps": 100.0,
        "seed": 0,
    }
    told = {} if distribution is None else {"distribution": distribution}
    return {
        "schema_version": 1,
        "strategy": settings["strategy"],
        "unlearning": settings["unlearning"],
        "config": {**settings, **config},
        "clients": 2,
        "environment": ENVIRONMENT,
        "phases": list(phases) or [phase(), phase(1, forgotten=0.0)],
        **told,
    }


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
