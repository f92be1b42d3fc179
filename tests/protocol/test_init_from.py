"""Protocols that begin with SplitWiper's pre-trained client segments."""

from functools import cache
from unittest.mock import patch

import pytest
import torch

from split_unlearning.clients import vanilla
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.models.split import build_segment
from split_unlearning.simulations.client_app import ContextStore
from split_unlearning.unlearning.exactness import digest
from split_unlearning.unlearning.stages import learning
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.local_grid import client_of, node_of
from tests.protocol.test_vanilla import SEED, same_bits
from tests.protocol.unsplit import thin_run

SETTINGS = {"share": 3, "pretrain_epochs": 1, "server_epochs": 1}
SEVERAL = "class:2;samples:0.5@class:3;client:1"


@cache
def splitwiper():
    return thin_run(3, strategy="splitwiper", **SETTINGS)


def kept_after(run, action):
    """Return the digest of what a client kept after an action, by phase and client."""
    kept = {}
    for node_id, content, answer in run.grid.sent:
        told = content.config_records.get("fitins.config", {})
        if told.get("action") == action:
            metrics = answer.config_records["fitres.metrics"]
            kept[str(told["phase"]), client_of(node_id)] = metrics["digest"]
    return kept


def spied_run(num_clients=3, **settings):
    """Run, and return it with who pre-trained: phase, client and number of samples."""
    trained = []

    def spy(client, segment):
        trained.append((client.phase, client.client, len(client.holding.ids)))
        return pretrain(client, segment)

    pretrain = vanilla.pretrain
    with patch("split_unlearning.clients.vanilla.pretrain", spy):
        return thin_run(num_clients, init_from="splitwiper", **{**SETTINGS, **settings}), trained


def pretrained(run, client):
    """Return what a client keeps of its pre-training."""
    names = ContextStore(run.grid.contexts[node_of(client)])
    return names.get("pretrained")


def pretrained_digests():
    """Return the digest of each pre-trained segment, by phase and client, as SplitWiper has it."""
    return {
        (phase["phase"], client): phase["digests"]["clients"][str(client)]
        for phase in splitwiper().phases
        for client in range(3)
    }


def test_the_reference_pre_trains_the_requesting_client_again_and_no_other():
    digests = pretrained_digests()
    assert digests["learn", 0] != digests["unlearn", 0]
    assert digests["learn", 1] == digests["unlearn", 1]
    assert len({digests["learn", client] for client in range(3)}) == 3


def test_a_segment_that_travels_is_that_of_whom_it_begins_with():
    run, trained = spied_run(strategy="vanilla", client_sync="handoff")
    first = run.strategy.turns(learning(1), 0, range(3))[0]
    kept, wanted = kept_after(run, "start"), pretrained_digests()
    for phase in ("learn", "unlearn"):
        assert kept[phase, first] == wanted[phase, first]
    # Nobody else pre-trains for nothing, and who did does so again only if it forgets.
    asked = ["learn", "unlearn"] if first == 0 else ["learn"]
    assert [(phase, client) for phase, client, _ in trained] == [(phase, first) for phase in asked]


def test_vanilla_starts_from_splitwiper_s_segments_before_and_after_a_request():
    run, trained = spied_run(strategy="vanilla")
    assert kept_after(run, "start") == pretrained_digests()
    held = [len(ids) for ids in run.prepared.plan.train]
    (forgetting,) = run.prepared.forgettings
    assert trained == [
        *(("learn", client, held[client]) for client in range(3)),
        ("unlearn", 0, held[0] - len(forgetting.samples[0])),
    ]


def test_u_shaped_starts_from_splitwiper_s_bottoms_and_heads_of_its_own():
    run, trained = spied_run(strategy="u-shaped")
    data = run.prepared.dataset
    shape = ("head", "cnn", data.input_shape, data.num_classes)
    after = splitwiper()
    ends = {}
    for client in range(3):
        head = build_segment(*shape, derive_seed(SEED, "head-segment", client)).state_dict()
        named = {f"head.{name}": value for name, value in head.items()}
        bottom = after.client_state(client)
        ends[client] = digest({f"bottom.{name}": bottom[name] for name in bottom} | named)
    kept = kept_after(run, "start")
    assert {client: kept["unlearn", client] for client in range(3)} == ends
    # Of before the request only the others' weights are still there.
    assert {client: kept["learn", client] for client in (1, 2)} == {1: ends[1], 2: ends[2]}
    assert kept["learn", 0] != ends[0]
    assert [one[:2] for one in trained] == [
        ("learn", 0),
        ("learn", 1),
        ("learn", 2),
        ("unlearn", 0),
    ]


def test_u_shaped_s_first_bottoms_are_splitwiper_s_where_nothing_is_forgotten():
    run, _ = spied_run(2, strategy="u-shaped", forget="")
    reference = thin_run(2, strategy="splitwiper", forget="", **SETTINGS)
    for client in range(2):
        kept = TensorStore(ContextStore(run.grid.contexts[node_of(client)])).load("pretrained")
        assert same_bits(kept, reference.client_state(client))


def test_splitfed_starts_from_splitwiper_s_segments_and_then_shares_one():
    run, trained = spied_run(strategy="splitfed")
    assert kept_after(run, "start") == pretrained_digests()
    assert len(trained) == 4
    for phase in run.phases:
        assert len(set(phase["digests"]["clients"].values())) == 1


def test_requests_of_different_clients_pre_train_one_client_each():
    run, trained = spied_run(strategy="vanilla", forget=SEVERAL)
    again = [(phase, client) for phase, client, _ in trained if phase == "unlearn"]
    assert again == [("unlearn", 0), ("unlearn", 0), ("unlearn", 1)]
    reference = thin_run(3, strategy="splitwiper", forget=SEVERAL, **SETTINGS)
    digests = reference.digests["clients"]
    last = kept_after(run, "start")
    assert {str(client): last["unlearn", client] for client in range(3)} == digests


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "vanilla", "client_sync": "none"}, {"strategy": "u-shaped"}],
)
def test_a_method_that_goes_on_from_what_was_learned_pre_trains_nobody_again(settings):
    run, trained = spied_run(unlearning="fine-tune", **settings)
    assert [phase for phase, *_ in trained] == ["learn"] * 3
    # What was pre-trained with the forgotten samples is not kept.
    assert pretrained(run, 0) is None
    assert pretrained(run, 1) is not None


def test_without_the_key_nobody_pre_trains():
    with patch(
        "split_unlearning.clients.vanilla.pretrain", side_effect=AssertionError("pre-trained")
    ):
        run = thin_run(2, strategy="vanilla", **SETTINGS)
    assert pretrained(run, 0) is None


def test_a_pre_trained_start_is_another_than_a_fresh_one():
    run, _ = spied_run(1, strategy="vanilla", forget="")
    fresh = thin_run(1, strategy="vanilla", forget="", **SETTINGS)
    assert kept_after(run, "start") != kept_after(fresh, "start")
    assert run.digests["server"] != fresh.digests["server"]
    assert not torch.equal(*(one.server_state["head.weight"] for one in (run, fresh)))


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "splitfed", "splitfed_version": 1},
        {"strategy": "vanilla", "client_sync": "handoff"},
        {"strategy": "u-shaped", "client_sync": "handoff"},
    ],
)
def test_a_shared_segment_learns_and_forgets_from_a_pre_trained_start(settings):
    run, _ = spied_run(
        2,
        **settings,
        share=1,
        distribution="iid",
        forget="client:1",
        pretrain_epochs=2,
        server_epochs=3,
        learning_rate=0.1,
        momentum=0.5,
    )
    for phase in run.phases:
        assert phase["accuracy"]["retained"] > 0.8
        assert len(set(phase["digests"]["clients"].values())) == 1


def test_splitwiper_itself_refuses_the_key():
    with (
        patch(
            "split_unlearning.simulations.server_app.place", side_effect=AssertionError("started")
        ),
        pytest.raises(UserError) as refusal,
    ):
        thin_run(2, strategy="splitwiper", init_from="splitwiper", **SETTINGS)
    assert str(refusal.value).startswith("init-from='splitwiper' is not possible; allowed: 'fresh'")
    assert "\n" not in str(refusal.value)


def test_what_it_could_start_from_is_said():
    with pytest.raises(UserError, match=r"init-from='splitwipe' .*allowed: fresh, splitwiper"):
        thin_run(2, strategy="vanilla", init_from="splitwipe", **SETTINGS)
