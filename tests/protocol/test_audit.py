"""An audit tells what the model makes of every sample, and changes nothing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from split_unlearning.clients.splitwiper import SplitWiperClient
from split_unlearning.evaluation.outputs import FILE, read_outputs
from split_unlearning.foundations.errors import UserError
from split_unlearning.models.split import segment_with
from split_unlearning.models.training import TrainingSettings
from split_unlearning.reporting.result import Result
from split_unlearning.simulations.session.audit import outputs_of
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.strategies.server.scoring import Scoring
from split_unlearning.strategies.splitwiper import SplitWiper
from tests.configs import config_of
from tests.local_grid import LocalRun, client_of
from tests.refusals import refusal

ROOT = Path(__file__).parents[2]
SMALL = {
    "samples": 150,
    "test_samples": 60,
    "server_epochs": 2,
    "pretrain_epochs": 2,
    "forget": "class:2;samples:0.5@class:3",
    "forget_client": 1,
}
BUILT_IN = [
    "vanilla",
    "u-shaped",
    "splitfed",
    "splitwiper",
    "splitwiper-plus",
    "gradient-projection",
]


def audited(folder, **settings):
    run = LocalRun(3, audit=True, out=str(folder), **{**SMALL, **settings})
    return run, read_outputs(folder / FILE)


def check_is_about(run, found):
    """Check that outputs are those of every sample of the plan, and what accuracies follow."""
    data, plan = run.prepared.dataset, run.prepared.plan
    assert list(found) == [phase["task"] for phase in run.phases]
    for task, outputs in found.items():
        test = outputs.is_test
        for client in range(plan.num_clients):
            for split, ids, labels in (
                (~test, plan.train[client], data.y_train),
                (test, plan.test[client], data.y_test),
            ):
                here = outputs.where(split & (outputs.client == client))
                assert here.ids.tolist() == ids.tolist()
                assert here.labels.tolist() == labels[ids].tolist()
        for number, forgetting in enumerate(run.prepared.forgettings, start=1):
            meant = {client: ids.tolist() for client, ids in forgetting.samples.items()}
            by = outputs.forgotten_by == number
            told = {int(one): outputs.ids[by & (outputs.client == one)] for one in meant}
            expected = meant if number <= task else {one: [] for one in meant}
            assert {client: ids.tolist() for client, ids in told.items()} == expected
        assert set(outputs.forgotten_by[test]) == {-1}
        assert outputs.probabilities.dtype == np.float32
        np.testing.assert_allclose(outputs.probabilities.sum(axis=1), 1, atol=1e-5)
        right = outputs.probabilities.argmax(axis=1) == outputs.labels
        accuracy = run.phases[task]["accuracy"]["per_client"]
        shares = {str(one): right[test & (outputs.client == one)].mean() for one in range(3)}
        assert shares == pytest.approx(accuracy)


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_every_strategy_says_it_and_nothing_else_changes(tmp_path, strategy):
    run, found = audited(tmp_path, strategy=strategy)
    check_is_about(run, found)
    plain = LocalRun(3, strategy=strategy, **SMALL)
    # The server's weights, and each client's, phase by phase; and what was scored.
    for one, other in zip(run.phases, plain.phases, strict=True):
        assert one["digests"] == other["digests"]
        assert one["accuracy"] == other["accuracy"]
    assert run.instructions("unlearn") == plain.instructions("unlearn")
    assert "audit" not in {action for _, action in plain.instructions("evaluate")}
    assert Result.read(tmp_path / "result.json").to_dict() == run.result


@pytest.mark.parametrize("strategy", ["vanilla", "splitwiper", "u-shaped"])
def test_it_is_what_the_whole_network_makes_of_each_image(tmp_path, strategy):
    run, found = audited(tmp_path, strategy=strategy, forget="samples:0.5@class:3")
    data, outputs = run.prepared.dataset, found[1]
    model = (run.prepared.config.cut_model(), data.input_shape, data.num_classes)
    for client in range(3):
        kept = run.client_state(client)
        if strategy == "u-shaped":
            ends = {
                end: {name[len(end) + 1 :]: kept[name] for name in kept if name.startswith(end)}
                for end in ("bottom", "head")
            }
            parts = [("client", ends["bottom"]), ("trunk", run.server_state)]
            parts.append(("head", ends["head"]))
        else:
            parts = [("client", kept), ("server", run.server_state)]
        network = torch.nn.Sequential(*(segment_with(part, *model, of) for part, of in parts))
        for test, images in ((False, data.train), (True, data.test)):
            here = outputs.where((outputs.is_test == test) & (outputs.client == client))
            with torch.no_grad():
                expected = torch.softmax(network.eval()(images(here.ids)[0]), dim=1).numpy()
            np.testing.assert_allclose(here.probabilities, expected, atol=1e-6)


def test_training_samples_are_uploaded_again_only_where_a_segment_changed(tmp_path):
    run, _ = audited(tmp_path, strategy="splitwiper", forget="class:2", upload_chunk_mb=16)
    uploads = [
        (client_of(node), str(fields["upload"]))
        for node, content, _ in run.grid.sent
        for fields in content.config_records.values()
        if fields.get("phase") == "evaluate" and fields.get("action") == "upload"
    ]
    both = [(client, split) for split in ("test", "audit") for client in range(3)]
    assert uploads == [*both, (1, "test"), (1, "audit")]
    plain = LocalRun(3, strategy="splitwiper", **{**SMALL, "forget": "class:2"})
    for one, other in zip(run.phases, plain.phases, strict=True):
        for mine, theirs in zip(one["clients"], other["clients"], strict=True):
            # Counted as evaluation, and nowhere else.
            assert {mine[key] for key in ("bytes_down", "messages")} == {
                theirs[key] for key in ("bytes_down", "messages")
            }
            assert mine["evaluation"]["bytes_up"] > theirs["evaluation"]["bytes_up"]


def test_what_a_result_says_of_privacy_is_not_of_who_has_the_outputs(tmp_path):
    noisy = {"strategy": "vanilla", "label_mechanism": "rr-with-prior", "label_epsilon": 2.0}
    run, _ = audited(tmp_path, **noisy, forget="")
    uncovered = run.phases[0]["privacy"]["does_not_cover"]
    plain = LocalRun(3, **{**SMALL, **noisy, "forget": ""})
    (more,) = set(uncovered) - set(plain.phases[0]["privacy"]["does_not_cover"])
    assert "audit=true" in more


def test_in_chunks_it_is_the_same(tmp_path):
    settings = {"strategy": "splitwiper", "forget": ""}
    _, whole = audited(tmp_path / "whole", **settings)
    run, chunked = audited(tmp_path / "chunked", upload_chunk_mb=0.02, **settings)
    assert chunked[0].probabilities.tobytes() == whole[0].probabilities.tobytes()
    assert len([one for one in run.instructions("evaluate") if one[1] == "upload"]) > 6


def test_a_strangers_strategy_that_scores_as_everybody_does_is_audited(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "plugin")
    settings = {"strategy": "frozen_features:FrozenFeatures", "forget": "class:2"}
    try:
        run, found = audited(tmp_path, **settings)
    finally:
        sys.modules.pop("frozen_features", None)
    check_is_about(run, found)


class OwnWay(SplitWiper):
    """Predicts in a way of its own."""

    def predictions_for(self, client):
        return {"predictions": self.server.call(Scoring.predict, client)}


class OwnClient(SplitWiperClient):
    """Reads predictions in a way of its own."""

    def predicted(self, message):
        return message.tensors["predictions"]


class OwnReading(SplitWiper):
    """Its client does."""

    client = f"{__name__}:OwnClient"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "without out there is no folder"),
        ({"out": "/tmp/a", "state_dir": "/tmp/b"}, "with state-dir"),
        ({"out": "/tmp/a", "strategy": "OwnWay"}, "OwnWay defines predictions_for and not"),
        ({"out": "/tmp/a", "strategy": "OwnReading"}, "OwnClient defines predicted and not"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(monkeypatch, settings, line):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    if "strategy" in settings:
        settings = {**settings, "strategy": f"{__name__}:{settings['strategy']}"}
    said = refusal(config_of(audit=True, **settings).check, error=UserError)
    assert said.startswith("audit=True is not possible; allowed: false")
    assert line in said


def test_a_client_that_was_not_told_of_an_audit_says_nothing():
    told = {"audit": False, "training": TrainingSettings(), "options": {}}
    setting = type("Setting", (), told)
    with pytest.raises(ValueError, match="where audit=true, never else"):
        SplitWiperClient(setting).audit(None)


def test_who_does_not_answer_an_audit_is_missing_from_it_alone(tmp_path):
    run = LocalRun(
        3,
        silent=lambda client, fields: client == 2 and fields.get("action") == "audit",
        strategy="vanilla",
        round_timeout=0.2,
        skip_absent=True,
        audit=True,
        out=str(tmp_path),
        **{**SMALL, "forget": ""},
    )
    (learned,) = run.phases
    (line,) = learned["absent"]
    assert line.startswith("client 2 failed in phase evaluate at 'audit'")
    assert learned["accuracy"]["per_client"]["2"] is not None
    assert set(read_outputs(tmp_path / FILE)[0].client) == {0, 1}


def test_an_audit_that_nobody_answers_ends_the_run():
    with pytest.raises(ClientFailureError, match="no client answered"):
        outputs_of({})
