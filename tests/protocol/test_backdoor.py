"""A backdoor planted in what is to be forgotten: who bears it, and whether it opens."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.evaluation.backdoor import success
from split_unlearning.evaluation.outputs import FILE, Outputs, read_outputs
from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations import client_app
from split_unlearning.simulations.benchmark.measuring import metrics_of
from split_unlearning.simulations.data.backdoor import Backdoor, named_by, triggered
from split_unlearning.simulations.preparation import prepare
from split_unlearning.unlearning.request import parse_requests
from tests.configs import config_of
from tests.local_grid import LocalRun

LABEL = 7


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(8, 20), st.integers(8, 20)),
    st.integers(0, 99),
)
def test_a_trigger_is_a_white_square_in_a_corner(shape, seed):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    before = images.clone()
    marked = triggered(images)
    assert torch.equal(images, before)
    side = max(2, shape[-1] // 8)
    assert (marked[..., -side:, -side:] == 1).all()
    rest = torch.ones(shape[-2:], dtype=torch.bool)
    rest[-side:, -side:] = False
    assert torch.equal(marked[..., rest], images[..., rest])


def test_a_label_is_named_by_name_or_number():
    assert [Backdoor(name).planted_label(("a", "1", "c")) for name in ("c", "1", "0")] == [2, 1, 0]
    with pytest.raises(UserError, match="backdoor='3' is not possible; allowed: one of the 3"):
        Backdoor("3").planted_label(("a", "b", "c"))


@pytest.mark.parametrize("forget", ["class:2;samples:0.5@class:3", "samples:0.5@class:3;class:3"])
def test_what_is_planted_is_what_the_requests_name(forget):
    config = config_of(forget=forget, forget_client=1)
    prepared = prepare(config, 3)
    for client, ids in enumerate(prepared.plan.train):
        labels = prepared.dataset.y_train[ids]
        names = prepared.dataset.class_names
        found = named_by(parse_requests(forget, 1), client, ids, labels, names, config.seed)
        meant = [one.samples.get(client, []) for one in prepared.forgettings]
        assert found.tolist() == sorted(int(sample) for part in meant for sample in part)


def test_nothing_else_bears_it(tmp_path):
    settings = {"forget": "samples:0.5@class:3", "forget_client": 1, "backdoor": "7"}
    config = config_of(audit=True, out=str(tmp_path), **settings)
    (forgetting,) = prepare(config, 3).forgettings
    planted = forgetting.samples[1]
    for client in range(3):
        clean = client_app._holding(config_of(**{**settings, "backdoor": ""}), client, 3)
        held = client_app._holding(config, client, 3)
        bears = np.isin(held.ids, planted)
        assert bears.sum() == (len(planted) if client == 1 else 0)
        assert torch.equal(held.x[~bears], clean.x[~bears])
        assert torch.equal(held.x[bears], triggered(clean.x[bears]))
        assert held.y[bears].tolist() == [LABEL] * bears.sum()
        assert torch.equal(held.y[~bears], clean.y[~bears])
        assert torch.equal(held.test_x, clean.test_x)
        assert torch.equal(held.test_y, clean.test_y)
        # Requests go by the labels that the samples had.
        assert held.names.tolist() == clean.y.tolist()
        assert held.without(planted).names.tolist() == clean.without(planted).y.tolist()
        assert torch.equal(held.audited_x[len(held.ids) :], triggered(clean.test_x))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with a run that retrains, and one that does not forget."""
    folder = tmp_path_factory.mktemp("backdoor")
    chosen = prepare(config_of(samples=500, forget="", distribution="iid"), 2).plan.train[0]
    ids = folder / "ids.txt"
    ids.write_text("\n".join(map(str, chosen[::5])))
    for unlearning in ("retrain", "none"):
        run = LocalRun(
            2,
            strategy="vanilla",
            unlearning=unlearning,
            client_sync="handoff",
            distribution="iid",
            samples=500,
            forget=f"ids:{ids}",
            backdoor="7",
            audit=True,
            out=str(folder / unlearning),
            server_epochs=15,
            momentum=0.9,
            learning_rate=0.02,
        )
        assert run.phases[1]["accuracy"]["retained"] > 0.8
        assert run.phases[1]["samples"] == len(chosen[::5])
    return folder


def test_it_opens_until_it_is_forgotten(planted):
    learned, forgot = metrics_of(planted / "retrain", planted / "retrain", [])["phases"]
    assert learned["backdoor"]["success_before"] is None
    assert learned["backdoor"]["success"] == forgot["backdoor"]["success_before"] > 0.75
    assert forgot["backdoor"]["success"] == forgot["backdoor"]["reference_success"] < 0.25
    kept = metrics_of(planted / "none", planted / "retrain", [])["phases"][1]
    assert kept["backdoor"]["success"] == kept["backdoor"]["success_before"] > 0.75
    assert kept["backdoor"]["reference_success"] < 0.25


def test_outputs_hold_the_triggered_samples_apart(planted):
    for outputs in read_outputs(planted / "none" / FILE).values():
        test, with_trigger = (outputs.where(outputs.split == split) for split in (1, 2))
        assert test.ids.tolist() == with_trigger.ids.tolist()
        assert test.labels.tolist() == with_trigger.labels.tolist()
        assert (with_trigger.forgotten_by == -1).all()
        # What has the trigger is predicted otherwise.
        assert (with_trigger.probabilities.argmax(axis=1) == LABEL).mean() > 0.7
    forgotten = outputs.where(outputs.forgotten_by == 1)
    assert set(forgotten.labels.tolist()) == {LABEL}


def test_membership_is_not_measured_of_what_bears_a_trigger(planted):
    phases = metrics_of(planted / "none", None, [])["phases"]
    assert {phase["membership"] for phase in phases} == {None}
    result = json.loads((planted / "none" / "result.json").read_text())
    assert result["config"]["backdoor"] == "7"


def test_success_counts_samples_of_other_labels_of_who_planted_it():
    found = Outputs(
        client=np.array([0, 0, 0, 0, 1, 0]),
        ids=np.arange(6),
        labels=np.array([0, 1, 2, 1, 0, 0]),
        split=np.array([2, 2, 2, 2, 2, 1]),
        forgotten_by=np.full(6, -1),
        probabilities=np.eye(3, dtype=np.float32)[[2, 2, 2, 0, 1, 1]],
    )
    # Of client 0's, the third has that label already; the last bears no trigger.
    assert success(found, 2, {0}) == pytest.approx(2 / 3)
    assert success(found, 2, {1}) == 0
    assert success(found, 2, {5}) is None
    assert success(found, 2, set()) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"audit": False}, "without audit"),
        ({"forget": ""}, "nothing is to be forgotten"),
        ({"backdoor": "ten"}, "one of the 10 labels"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(tmp_path, settings, says):
    config = config_of(**{"audit": True, "out": str(tmp_path), "backdoor": "7", **settings})
    with pytest.raises(UserError, match=says):
        prepare(config, 3)
