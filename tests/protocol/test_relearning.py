"""Relearn time: against a plain loop, and what it tells of models that forgot and that did not."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment, segment_with
from split_unlearning.simulations.benchmark.measuring import metrics_of
from split_unlearning.unlearning.exactness import batches, order
from tests.local_grid import LocalRun

SMALL = {
    "samples": 300,
    "test_samples": 60,
    "server_epochs": 12,
    "pretrain_epochs": 2,
    "distribution": "homogeneous-labels",
    "forget": "class:2",
    "forget_client": 1,
    "learning_rate": 0.05,
    "audit": True,
}


@pytest.fixture
def run(tmp_path):
    def learn(name="run", **settings):
        return LocalRun(3, out=str(tmp_path / name), **{**SMALL, **settings})

    return learn


def relearned(run):
    return [phase["relearn"] for phase in run.phases]


def plain(run):
    """Relearn in plain PyTorch what the last request forgot; return the accuracy by epoch."""
    data, model, shape = run.prepared.dataset, "cnn", (1, 8, 8)
    ids = run.prepared.plan.train[1]
    images, y = data.train(ids[data.y_train[ids] == 2])
    with torch.no_grad():
        x = segment_with("client", model, shape, 10, run.client_state(1))(images)
    server = build_segment("server", model, shape, 10, 0)
    server.load_state_dict(run.server_state)
    optimiser = torch.optim.SGD(server.parameters(), lr=0.05)
    reached = []
    for epoch in range(13):
        with torch.no_grad():
            reached.append(float((server(x).argmax(1) == y).double().mean()))
        for batch in batches(len(y), 32):
            rows = order(np.arange(len(y)), derive_seed(0, "relearn", epoch))[batch]
            optimiser.zero_grad()
            F.cross_entropy(server(x[rows]), y[rows]).backward()
            optimiser.step()
    return reached


@pytest.mark.parametrize("strategy", ["splitwiper", "vanilla"])
def test_it_is_that_of_a_plain_loop(run, strategy):
    found = run(strategy=strategy)
    learn, forget = relearned(found)
    assert learn is None
    by_epoch = plain(found)
    wanted = forget["accuracy"]
    expected = next((n for n, one in enumerate(by_epoch) if one >= wanted), None)
    assert (forget["epochs"], forget["most"]) == (expected, 12)
    assert by_epoch[0] < wanted


def test_who_only_seems_to_have_forgotten_is_quicker_than_the_retrained(run, tmp_path):
    exact, kept, tuned = (
        run(name, strategy="vanilla", unlearning=name) for name in ("retrain", "none", "fine-tune")
    )
    assert tuned.phases[1]["accuracy"]["unlearned"] == 0
    epochs = [relearned(one)[1]["epochs"] for one in (exact, kept, tuned)]
    assert epochs[0] > epochs[2] > epochs[1] == 0
    measured = metrics_of(tmp_path / "fine-tune", tmp_path / "retrain", [])["phases"]
    assert [phase["relearn"] for phase in measured] == [
        None,
        {**relearned(tuned)[1], "reference_epochs": epochs[0]},
    ]


@pytest.mark.parametrize("strategy", ["u-shaped", "splitwiper-plus"])
def test_where_the_server_knows_no_labels_it_is_not_measured(run, strategy):
    assert relearned(run(strategy=strategy, server_epochs=1)) == [None, None]
