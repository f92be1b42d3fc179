"""SplitWiper forgets exactly: the same bits as if the samples had never been there."""

import dataclasses
import json
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.clients.alone import local_head
from split_unlearning.clients.base import SplitClient
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment
from split_unlearning.simulations import client_app
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.state.agenda import ReceivedRequest, Task
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.unlearning.exactness import digest
from tests.local_grid import LocalRun, client_of, dealt, node_of

SHORT = {"strategy": "splitwiper", "pretrain_epochs": 2, "server_epochs": 2}


def trained_without_what(run):
    """Train from scratch on a data set in which the forgotten samples are not even pictures."""
    data, plan = run.prepared.dataset, run.prepared.plan
    gone = np.concatenate([ids for one in run.prepared.forgettings for ids in one.samples.values()])
    images, labels = data.x_train.copy(), data.y_train.copy()
    images[gone] = 0
    labels[gone] = 0
    blank = dataclasses.replace(data, x_train=images, y_train=labels)
    kept = Plan(tuple(np.setdiff1d(ids, gone) for ids in plan.train), plan.test)
    with dealt(blank, kept):
        return LocalRun(
            plan.num_clients,
            **{**run.prepared.config.as_mapping(), "forget": "", "out": ""},
        )


@settings(max_examples=5, deadline=None)
@given(
    distribution=st.sampled_from(
        ["heterogeneous-labels", "homogeneous-labels", "partial-overlap", "iid"]
    ),
    forms=st.lists(st.sampled_from(["samples", "client", "ids"]), min_size=1, unique=True),
    share=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    ids=st.sets(st.integers(0, 1441), min_size=1, max_size=40),
    client=st.integers(1, 4),
    seed=st.integers(0, 50),
    client_init=st.sampled_from(["own", "shared"]),
)
def test_forgetting_equals_training_from_scratch(
    tmp_path_factory, distribution, forms, share, ids, client, seed, client_init
):
    path = tmp_path_factory.mktemp("ids") / "ids.txt"
    path.write_text("\n".join(map(str, ids)))
    texts = {
        "samples": f"samples:{share}@class:2",
        "client": f"client:{client}",
        "ids": f"ids:{path}",
    }
    # Ids come first: what an earlier request took cannot be named again.
    forget = ";".join(texts[form] for form in sorted(forms, key=("ids", "samples", "client").index))
    chosen = {"distribution": distribution, "seed": seed, "client_init": client_init}
    run = LocalRun(5, forget=forget, **chosen, **SHORT)
    assert run.digests == trained_without_what(run).digests
    changed = {client for one in run.prepared.forgettings for client in one.clients}
    before, after = run.phases[0]["digests"]["clients"], run.digests["clients"]
    assert {int(who) for who in before if before[who] != after[who]} == changed


@pytest.mark.parametrize("strategy", ["splitwiper", "splitwiper-plus"])
def test_clients_start_from_the_same_weights_if_the_user_says_so(strategy):
    starts = {}

    def keep(client, segment, *_):
        starts[client.client] = digest(segment.state_dict())
        return local_head(client, segment)

    with patch("split_unlearning.clients.splitwiper.pretrain", keep):
        for client_init, different in (("own", 3), ("shared", 1)):
            LocalRun(3, **{**SHORT, "strategy": strategy}, forget="", client_init=client_init)
            assert len(set(starts.values())) == different
    # They are vanilla's where its clients hand one segment on.
    assert starts[0] == digest(handed_on().state_dict())


def handed_on():
    """The segment that vanilla's clients hand on, before it is trained."""
    seed = derive_seed(RunConfig().training().seed, "client-segment", "shared")
    return build_segment("client", "cnn", (1, 8, 8), 10, seed)


def test_only_the_requesting_client_is_asked_to_forget():
    run = LocalRun(5, forget="class:2;client:3", **SHORT)
    assert run.instructions("unlearn") == [(0, "forget"), (3, "forget")]
    for phase, asking in zip(run.phases[1:], (0, 3), strict=True):
        for client in phase["clients"]:
            spent = (client["bytes_up"], client["bytes_down"], client["messages"])
            assert client["requested"] == (client["client"] == asking)
            if client["client"] == asking:
                assert min(spent) > 0
                assert client["train_seconds"] > 0
            else:
                assert spent == (0, 0, 0)
                assert client["train_seconds"] == 0


def test_after_a_request_only_the_requesting_client_uploads_test_activations_again():
    run = LocalRun(3, forget="class:2", **SHORT)
    uploads, scores = ([(client, what) for client in range(3)] for what in ("upload", "score"))
    assert run.instructions("evaluate") == [*uploads, *scores, (0, "upload"), *scores]


def test_a_forgotten_client_loses_its_shard_and_nobody_else_does():
    run = LocalRun(5, forget="client:4", **SHORT)
    learned, forgotten = (phase["server"]["cache_bytes"] for phase in run.phases)
    samples = len(run.prepared.plan.train[4])
    # 128 float32 at the cut and an int64 label a sample.
    assert learned - forgotten == samples * (128 * 4 + 8)
    assert learned == 1442 * (128 * 4 + 8)
    accuracy = run.phases[1]["accuracy"]
    assert accuracy["unlearned"] == accuracy["per_client"]["4"]


@pytest.mark.parametrize(
    "chunk_mb", [0.02, *(pytest.param(one, marks=pytest.mark.slow) for one in (0.003, 0.1))]
)
def test_an_upload_in_chunks_equals_an_upload_in_one(chunk_mb):
    one = LocalRun(3, forget="class:2", upload_chunk_mb=1000.0, **SHORT)
    many = LocalRun(3, forget="class:2", upload_chunk_mb=chunk_mb, **SHORT)
    assert many.digests == one.digests
    assert many.phases[0]["accuracy"] == one.phases[0]["accuracy"]
    sizes = [
        sum(len(array.data) for array in answer.array_records["fitres.parameters"].values())
        for _, _, answer in many.grid.sent
        if "fitres.parameters" in answer.array_records
    ]
    assert max(sizes) <= chunk_mb * 1e6 + 3 * 128  # one .npy header an array
    assert len(many.instructions("learn")) > len(one.instructions("learn")) == 3


def test_the_number_of_clients_in_flight_changes_nothing():
    alone = LocalRun(4, in_flight=1, forget="class:2", **SHORT)
    together = LocalRun(4, in_flight=3, forget="class:2", **SHORT)
    assert together.digests == alone.digests
    assert together.phases[0]["accuracy"] == alone.phases[0]["accuracy"]


def test_a_seed_gives_the_same_digests_and_another_seed_others():
    first, again = (LocalRun(2, forget="class:2", seed=3, **SHORT) for _ in range(2))
    other = LocalRun(2, forget="class:2", seed=4, **SHORT)
    assert first.digests == again.digests
    assert first.digests["server"] != other.digests["server"]


@pytest.mark.parametrize("num_clients", [1, pytest.param(2, marks=pytest.mark.slow), 12])
def test_any_number_of_clients(num_clients):
    run = LocalRun(
        num_clients, strategy="splitwiper", pretrain_epochs=5, server_epochs=20, forget="class:2"
    )
    before, after = (phase["accuracy"] for phase in run.phases)
    assert before["unlearned"] > 0.8
    assert after["unlearned"] == 0
    assert min(before["retained"], after["retained"]) > 0.8
    assert len(run.phases[0]["clients"]) == num_clients


def test_no_weights_and_no_test_labels_leave_a_client():
    run = LocalRun(2, forget="class:2", **SHORT)
    for _, _, answer in run.grid.sent:
        for record in answer.array_records.values():
            shapes = [array.data for array in record.values()]
            assert len(shapes) in (1, 3) or all(len(data) == 0 for data in shapes)
        for name, fields in answer.config_records.items():
            if name == "fitres.metrics" and fields["upload"] == "test":
                assert fields["tensors"] == "smashed"
            elif name == "fitres.metrics":
                assert fields["tensors"] == "smashed,labels,ids"


@pytest.mark.parametrize("unlearning", ["retrain", "gradient-ascent"])
def test_a_request_that_arrives_twice_is_acted_upon_once(unlearning):
    run = LocalRun(3, forget="samples:0.5@class:2", unlearning=unlearning, **SHORT)
    once = run.digests["clients"]["0"]
    (forgetting,) = run.prepared.forgettings
    context = run.grid.contexts[node_of(0)]
    client = client_app.client_fn(context).numpy_client
    told = Task(1, (ReceivedRequest.of(forgetting, 0),)).requests(run.prepared.plan)
    message = run.strategy.ask_to_forget(told, "forget").messages[0]
    message.fields |= {"client": 0, "phase": "unlearn"}
    _, samples, fields = client.fit(*message.pack())
    assert fields["chunks"] == 1
    assert digest(run.client_state(0)) == once
    assert fields["left-out"] == len(forgetting.samples[0])
    assert samples == len(run.prepared.plan.train[0]) - len(forgetting.samples[0])


def test_a_client_is_told_of_its_own_samples_only(tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(0, 1442, 30))))
    run = LocalRun(5, forget=f"ids:{tmp_path / 'ids.txt'}", **SHORT)
    (forgetting,) = run.prepared.forgettings
    assert len(forgetting.clients) == 5
    told = {
        client_of(node_id): json.loads(content.config_records["fitins.config"]["request"])
        for node_id, content, _ in run.grid.sent
        if "request" in content.config_records.get("fitins.config", {})
    }
    for client, request in told.items():
        assert request["ids"] == forgetting.samples[client].tolist()
        assert str(tmp_path) not in str(request)


def test_a_client_that_leaves_out_something_else_is_found_out():
    honest = SplitClient.forget_samples

    def say_nothing_was(client, message):
        request = honest(client, message)
        client.left_out = 0
        return request

    with (
        patch("split_unlearning.clients.base.SplitClient.forget_samples", say_nothing_was),
        pytest.raises(ClientFailureError, match=r"client 0 was to forget 142 samples .* says .* 0"),
    ):
        LocalRun(5, forget="class:2", **SHORT)


def test_diverging_training_is_refused_with_what_may_mend_it():
    with pytest.raises((ClientFailureError, ValueError), match="a lower learning-rate may mend it"):
        LocalRun(2, forget="", learning_rate=1e6, **SHORT)
