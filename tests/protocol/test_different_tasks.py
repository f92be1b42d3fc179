"""Clients with different tasks, in colour and in grey, small and large, against one server."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.client_app import _holding
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.loading import load, load_all
from split_unlearning.simulations.preparation import deal, prepare
from tests.local_grid import LocalRun, dealt
from tests.refusals import refusal
from tests.state.bench import certificate, few_digits, learn, unlearn

QUICK = {"pretrain_epochs": 3, "server_epochs": 4, "batch_size": 16, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Four digits in grey, 8x8, and three kinds of coloured stripes, 12x10."""
    folder = tmp_path_factory.mktemp("tasks")
    digits = few_digits(folder / "digits.npz")
    rng = np.random.default_rng(5)
    y = np.repeat(np.arange(3), 30)
    x = rng.integers(0, 60, (90, 12, 10, 3)).astype(np.uint8)
    for row, label in enumerate(y):
        x[row, label::3, :, label] = 200
    np.savez(
        folder / "stripes.npz",
        **{"x_train": x[::2], "y_train": y[::2], "x_test": x[1::2], "y_test": y[1::2]},
        class_names=np.array(["red", "green", "2"]),
    )
    return digits, f"npz:{folder / 'stripes.npz'}"


def settings(both, **chosen):
    return {"dataset": "+".join(both), "distribution": "different-tasks", **QUICK, **chosen}


def test_labels_are_joint_and_images_keep_their_channels(both):
    joined = load_all("+".join(both))
    assert joined.class_names == ("0", "1", "task1/2", "3", "red", "green", "task2/2")
    parts = [load(name) for name in both]
    assert len(joined.y_train) == sum(len(part.y_train) for part in parts)
    first = len(parts[0].y_train)
    ids = np.array([first, first + 7])
    x, y = joined.view_of(ids).train(ids)
    own_x, own_y = parts[1].train(ids - first)
    assert torch.equal(x, own_x)
    assert torch.equal(y, own_y + 4)
    x, y = joined.view_of(np.array([3])).train(np.array([3]))
    own_x, own_y = parts[0].train(np.array([3]))
    assert x.shape == (1, 1, 12, 10)
    assert torch.equal(x[:, :, 2:10, 1:9], own_x)
    assert torch.equal(y, own_y)
    border = torch.ones(12, 10, dtype=torch.bool)
    border[2:10, 1:9] = False
    assert torch.all(x[0, 0][border] == -1)


def test_each_client_holds_one_task_in_train_and_test(both):
    config = RunConfig.from_mapping(
        {"dataset": "+".join(both), "distribution": "different-tasks", "forget": "class:3"}
    )
    shapes = [tuple(_holding(config, client, 5).x.shape[1:]) for client in range(5)]
    assert shapes == [(1, 12, 10)] * 3 + [(3, 12, 10)] * 2
    for client in range(5):
        held = _holding(config, client, 5)
        assert held.test_x.shape[1:] == held.x.shape[1:]
        assert (held.y < 4).all() == (client < 3)
        assert (3 in held.y.tolist()) == (client == 0)


def test_samples_are_a_share_of_every_task(both):
    config = RunConfig.from_mapping(
        {"dataset": "+".join(both), "distribution": "different-tasks", "samples": 70}
    )
    dataset, plan = deal(config, 5)
    seen = np.concatenate(plan.train)
    assert len(seen) == 70
    assert np.bincount(dataset.task_of_label[dataset.y_train[seen]]).tolist() == [48, 22]


@pytest.mark.parametrize("strategy", ["splitwiper", "vanilla"])
def test_one_server_segment_learns_both_tasks(both, strategy):
    run = LocalRun(5, **settings(both, strategy=strategy, server_epochs=20, forget=""))
    found = run.phases[0]["accuracy"]["per_task"]
    assert list(found) == list(both)
    assert min(found.values()) > 0.45


@pytest.mark.parametrize("strategy", ["splitwiper", "vanilla", "u-shaped"])
def test_forgetting_is_exact(both, strategy):
    chosen = settings(both, strategy=strategy, forget="class:red", forget_client=4)
    run = LocalRun(5, **chosen)
    assert run.phases[1]["accuracy"]["unlearned"] == 0
    kept = run.phases[0]["digests"]["clients"]
    if strategy == "splitwiper":
        assert {c for c in kept if kept[c] != run.digests["clients"][c]} == {"4"}
    prepared = run.prepared
    gone = prepared.forgettings[0].samples[4]
    left = tuple(np.setdiff1d(ids, gone) for ids in prepared.plan.train)
    with dealt(prepared.dataset, replace(prepared.plan, train=left)):
        scratch = LocalRun(5, **{**chosen, "forget": ""})
    assert scratch.digests == run.digests


def test_accuracy_of_a_task_is_over_the_clients_that_hold_it(both):
    run = LocalRun(5, **settings(both, forget=""))
    (phase,) = run.phases
    dataset, plan = run.prepared.dataset, run.prepared.plan
    sizes = [len(ids) for ids in plan.test]
    for name, clients in zip(both, ([0, 1, 2], [3, 4]), strict=True):
        right = sum(phase["accuracy"]["per_client"][str(c)] * sizes[c] for c in clients)
        assert phase["accuracy"]["per_task"][name] == pytest.approx(
            right / sum(sizes[c] for c in clients)
        )
    assert len(dataset.tasks) == 2


def test_labels_can_be_hidden_and_everybody_audited(both, tmp_path):
    chosen = {"strategy": "splitwiper-plus", "expansion": "2", "forget": "class:0"}
    run = LocalRun(5, **settings(both, **chosen, audit=True, out=str(tmp_path / "out")))
    assert run.phases[1]["accuracy"]["unlearned"] == 0
    assert set(run.phases[1]["accuracy"]["per_task"]) == set(both)


def test_a_request_weeks_later_verifies(both, tmp_path):
    chosen = settings(both, forget="", server_epochs=2)
    path = tmp_path / "state"
    learn(path, chosen, num_clients=3)
    unlearn(path, chosen, ("class:green", 2))
    assert certificate(path, chosen)["holds"]


def refused(both, num_clients=5, **chosen):
    settings = {"dataset": "+".join(both), "distribution": "different-tasks", **chosen}
    return refusal(lambda: prepare(RunConfig.from_mapping(settings), num_clients), error=UserError)


def test_what_does_not_fit_is_refused_in_one_line(both):
    grey = both[0]
    line = refused(both, distribution="iid", forget="")
    assert line.startswith("distribution='iid' is not possible; allowed: different-tasks")
    line = refused([grey], forget="")
    assert line.startswith("distribution='different-tasks' is not possible; allowed: any other")
    line = refused(both, strategy="splitfed", forget="")
    assert line.startswith("strategy='splitfed' is not possible; allowed: one whose clients keep")
    line = refused(both, strategy="vanilla", **{"client-sync": "handoff", "forget": ""})
    assert line.startswith("client-sync='handoff' is not possible; allowed: none (dataset=")
    line = refused(both, forget="class:red")
    assert line.startswith("forget='class:4' is not possible; allowed: a label of the task of")
    line = refused(both, num_clients=1, forget="")
    assert line.startswith("num-supernodes=1 is not possible; allowed: at least 2")
    line = refused([grey, grey], forget="")
    assert line.endswith("is not possible; allowed: data sets that differ")
    line = refused(both, forget="", **{"data-dir": "/nowhere"})
    assert "one that reads data-dir" in line


def test_a_plus_in_a_path_joins_nothing(tmp_path):
    name = few_digits(tmp_path / "a+b.npz")
    assert len(load_all(name).tasks) == 1
    other = few_digits(tmp_path / "c+digits.npz", labels=2)
    assert [task.name for task in load_all(f"{name}+{other}").tasks] == [name, other]
