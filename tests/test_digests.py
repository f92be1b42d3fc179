"""The redesign changes no bit: every strategy and method gives what it gave before it began.

``python -m tests.test_digests`` writes the file anew. It goes when the redesign has ended.
"""

import json
from pathlib import Path

import pytest
import torch

from split_unlearning.models.training import TrainingSettings
from tests.local_grid import LocalRun

GOLDEN = Path(__file__).with_name("digests.json")

METHODS = {
    "vanilla": ["retrain", "none", "fine-tune", "gradient-ascent", "distillation"],
    "u-shaped": ["retrain", "fine-tune", "gradient-ascent", "distillation"],
    "splitfed": ["retrain", "fine-tune", "gradient-ascent", "distillation"],
    "splitwiper": ["retrain", "none", "fine-tune", "gradient-ascent", "distillation"],
    "splitwiper-plus": ["retrain"],
    "gradient-projection": ["gradient-projection", "gradient-projection-paper", "retrain"],
}
SHORT = {
    "samples": 240,
    "test-samples": 120,
    "pretrain-epochs": 1,
    "server-epochs": 2,
    "momentum": 0.5,
    "learning-rate": 0.05,
}
EPOCHS = {
    "fine-tune": {"fine-tune-epochs": 1},
    "gradient-ascent": {"ascent-epochs": 1, "fine-tune-epochs": 1},
    "distillation": {"distillation-epochs": 1},
}
MORE = {
    "sliced": {"strategy": "splitwiper", "slices": 3, "server-slices": 2},
    "stable": {"strategy": "splitwiper", "server-slices": 2, "stable-clients": "1,0,2"},
    "rounded": {"strategy": "vanilla", "codec": "float16", "client-sync": "handoff"},
    "noisy": {"strategy": "vanilla", "gradient-noise": "max-norm"},
    "marvell": {
        "strategy": "vanilla",
        "gradient-noise": "marvell",
        "gradient-noise-power": 1.0,
    },
    "randomised": {
        "strategy": "vanilla",
        "label-mechanism": "rr-with-prior",
        "label-epsilon": 2.0,
    },
    "averaged": {"strategy": "splitfed", "splitfed-version": 2, "forget": "samples:0.5@class:3"},
    "resnet": {"strategy": "vanilla", "model": "resnet18", "samples": 60, "weight-decay": 1e-3},
    "low": {"strategy": "u-shaped", "precision": "bfloat16"},
    "private": {"strategy": "splitwiper-plus", "epsilon": "8", "attacks": True},
    "replicated": {"strategy": "splitwiper-plus", "copies": "replicate", "expansion": "2"},
    "raw": {"strategy": "splitwiper-plus", "mechanism": "gaussian", "epsilon": "1"},
    "started": {"strategy": "vanilla", "init-from": "splitwiper", "distribution": "dirichlet"},
    "sparse": {
        "strategy": "gradient-projection",
        "unlearning": "gradient-projection",
        "cache-codec": "int8",
        "cache-every": 2,
        "shares": "whole",
    },
    "whole": {
        "strategy": "gradient-projection",
        "unlearning": "gradient-projection",
        "shares": "whole",
        "client-sync": "handoff",
    },
    "two": {"strategy": "splitwiper", "forget": "samples:0.5@class:3;class:2", "score-every": 1},
}


def runs():
    for strategy, methods in METHODS.items():
        for method in methods:
            own = {"strategy": strategy, "unlearning": method}
            yield f"{strategy}/{method}", {**SHORT, **EPOCHS.get(method, {}), **own}
    for name, own in MORE.items():
        yield name, {**SHORT, **own}


def processor():
    """What a few steps of arithmetic come to: digests are the same where this is."""
    TrainingSettings(threads=1).fix_kernels()
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )
    images = torch.randn(32, 3, 8, 8)
    for _ in range(3):
        net.zero_grad()
        net(images).logsumexp(1).sum().backward()
        with torch.no_grad():
            for weight in net.parameters():
                weight -= 0.01 * weight.grad
    return sum(float(weight.detach().double().abs().sum()) for weight in net.parameters()).hex()


def outcome(settings):
    """What a run came to, without its seconds."""
    run = LocalRun(3, **settings)
    said = []
    for phase in run.phases:
        clients = [
            [client["bytes_up"], client["bytes_down"], client["evaluation"]["bytes_up"]]
            for client in phase["clients"]
        ]
        figures = {key: phase[key] for key in ("digests", "accuracy", "samples", "by_epoch")}
        figures["label_matching"] = repr(phase["label_matching"])
        said.append({**figures, "clients": clients})
    return json.loads(json.dumps(said))


@pytest.mark.parametrize(("name", "settings"), list(runs()), ids=[name for name, _ in runs()])
def test_a_run_comes_to_what_it_came_to_before(name, settings):
    golden = json.loads(GOLDEN.read_text())
    if golden["processor"] != processor():
        pytest.skip("the digests in the file are those of another processor")
    assert outcome(settings) == golden["runs"][name]


def main():
    written = {name: outcome(settings) for name, settings in runs()}
    GOLDEN.write_text(json.dumps({"processor": processor(), "runs": written}, indent=1))


if __name__ == "__main__":
    main()
