"""A model that is cut where the user says: both sides hold their part of it, and forget exactly."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import CutModel, build_segment
from split_unlearning.unlearning.exactness import digest
from tests.local_grid import LocalRun, dealt

# The smallest model of torchvision; its first layer ends in batch norm and a ReLU.
SETTINGS = {
    "model": "torchvision:shufflenet_v2_x0_5",
    "cut": "conv1",
    "client_norm": "group",
    "server_epochs": 1,
    "batch_size": 500,
    "learning_rate": 0.01,
}
CHOSEN = CutModel(SETTINGS["model"], SETTINGS["cut"], SETTINGS["client_norm"])


@pytest.fixture(scope="module")
def runs():
    """Return a run that forgets a label, and the same again."""
    return [LocalRun(2, pretrain_epochs=1, **SETTINGS) for _ in range(2)]


def test_clients_hold_what_lies_before_the_cut_with_group_norm():
    run = LocalRun(2, pretrain_epochs=0, forget="", **SETTINGS)
    for client in range(2):
        seed = derive_seed(0, "client-segment", client)
        expected = build_segment("client", CHOSEN, (1, 8, 8), 10, seed).state_dict()
        assert run.phases[0]["digests"]["clients"][str(client)] == digest(expected)
        assert not any("running" in name for name in run.client_state(client))


def flat(num_labels):
    """A network whose client ends in features without a place in the image."""
    layers = {"rows": nn.Flatten(), "early": nn.Linear(64, 6), "late": nn.Linear(6, num_labels)}
    return nn.Sequential(OrderedDict(layers))


def test_a_client_learns_alone_what_ends_in_a_row_of_features():
    path = f"{__name__}:flat"
    run = LocalRun(2, model=path, cut="early", pretrain_epochs=2, server_epochs=2, forget="class:3")
    assert run.phases[0]["accuracy"]["retained"] > 0.5


def test_the_server_holds_the_rest(runs):
    rest = build_segment("server", CHOSEN, (1, 8, 8), 10, seed=0).state_dict()
    held = runs[0].server_state
    assert {name: value.shape for name, value in held.items()} == {
        name: value.shape for name, value in rest.items()
    }
    assert any("running_mean" in name for name in rest)


def test_the_same_seed_gives_the_same_digests(runs):
    first, again = ([phase["digests"] for phase in run.phases] for run in runs)
    assert first == again
    assert first[0] != first[1]


def test_forgetting_is_exact(runs):
    prepared = runs[0].prepared
    (forgotten,) = prepared.forgettings[0].samples.values()
    left = tuple(np.setdiff1d(held, forgotten) for held in prepared.plan.train)
    with dealt(prepared.dataset, replace(prepared.plan, train=left)):
        scratch = LocalRun(2, pretrain_epochs=1, forget="", **SETTINGS)
    assert scratch.phases[0]["digests"] == runs[0].digests
