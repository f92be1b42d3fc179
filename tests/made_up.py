"""What a ``result.json`` holds, complete and made up."""

import json

from split_unlearning.reporting.result import Result

DIGEST = "0" * 64
LABELS = ("airplane", "bird", "cat")


def traffic(up=0, down=0, messages=0):
    return {
        "bytes_up": up,
        "bytes_down": down,
        "messages": messages,
        "transmission_seconds": (up + down) * 8e-8,
        "transmission_seconds_up": up * 8e-8,
    }


def client(number, requested=False, **cost):
    computed = {"train_seconds": 0.0, "pretrain_seconds": 0.0}
    return {
        "client": number,
        "requested": requested,
        **computed,
        **traffic(),
        "evaluation": traffic(),
        **cost,
    }


def server(seconds, cached):
    return {"train_seconds": seconds, "cache_bytes": cached}


def phase(request=None, unlearned=0.5, retained=0.75, clients=(), **more):
    """Return a phase; it learns if nothing is asked for."""
    task = 0 if request is None else 1
    clients = list(clients) or [client(0, True), client(1)]
    return {
        "task": task,
        "phase": "unlearn" if task else "learn",
        "request": request,
        "samples": 10 if task else 0,
        "accuracy": {
            "unlearned": unlearned,
            "retained": retained,
            "per_label": dict.fromkeys(LABELS, 0.5),
            "per_client": {str(one["client"]): 0.5 for one in clients},
            "per_task": {"digits": 0.5},
        },
        "by_epoch": [],
        "clients": clients,
        "server": server(0.0, 0),
        "timing": {"questions": {}, "link": {"batches": 0, "seconds": 0.0}},
        "absent": [],
        "approximations": [],
        "privacy": None,
        "label_matching": None,
        "membership": None,
        "relearn": None,
        "digests": {"server": DIGEST, "clients": {str(one["client"]): DIGEST for one in clients}},
        **more,
    }


def result(*phases, config=None, **more):
    """Return a run's result; a learning stands first, whether it is given or not."""
    phases = list(phases) or [phase(), phase("class:bird")]
    if phases[0]["phase"] != "learn":
        phases = [phase(clients=phases[0]["clients"]), *phases]
    numbers = [one["client"] for one in phases[0]["clients"]]
    return {
        "schema_version": 1,
        "strategy": "splitwiper",
        "unlearning": "retrain",
        "config": {
            "strategy": "splitwiper",
            "unlearning": "retrain",
            "dataset": "digits",
            "distribution": "iid",
            "bandwidth-mbps": 100.0,
            "seed": 7,
            **(config or {}),
        },
        "clients": len(numbers),
        "environment": {
            "python": "3.11",
            "platform": "made up",
            "processor_count": 2,
            "threads": 1,
            "precision": "float32",
            "server_device": "cpu",
            "client_devices": ["cpu"],
            **dict.fromkeys(("flwr", "ray", "torch", "numpy"), "1"),
        },
        "distribution": {"labels": list(LABELS), "train": [[1, 2, 3] for _ in numbers]},
        "setup": {"clients": [{"client": number, **traffic()} for number in numbers]},
        "phases": phases,
        **more,
    }


def read(written):
    """Return a result, of what its file holds."""
    return Result.model_validate_json(json.dumps(written))
