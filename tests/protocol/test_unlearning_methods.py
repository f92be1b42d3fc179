"""Every unlearning method is what it says, written again in plain PyTorch without a cut."""

import math

import pytest

from tests.protocol import unsplit as unsplit_loops
from tests.protocol.test_splitfed import close
from tests.protocol.test_vanilla import large_digits, same_bits
from tests.protocol.unsplit import (
    FOLLOWING,
    METHODS,
    PASSES,
    averaged,
    equals_the_unsplit_network,
    server_from_scratch,
    stages_trained,
    thin_run,
    trained_alone,
    unsplit,
)

__all__ = ["large_digits"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped"])
def test_with_one_client_a_method_equals_the_unsplit_network(strategy, method, monkeypatch):
    run = thin_run(1, strategy=strategy, unlearning=method)
    equals_the_unsplit_network(run)
    before, after = (phase["digests"] for phase in run.phases)
    assert before["server"] != after["server"]
    assert before["clients"] != after["clients"]
    # The comparison sees what the method's own setting does.
    monkeypatch.setattr(unsplit_loops, "BOUND", math.inf)
    monkeypatch.setattr(unsplit_loops, "ALPHA", 0.5)
    altered = unsplit(run)[0][1].state_dict()
    assert same_bits(run.server_state, altered) == (method == "fine-tune")


@pytest.mark.parametrize(
    ("method", "client_sync"),
    [(method, "none") for method in METHODS] + [(method, "handoff") for method in METHODS[1:]],
)
def test_with_several_clients_and_requests_a_method_equals_networks_with_one_server_part(
    method, client_sync
):
    settings = {"client_sync": client_sync, "forget": FOLLOWING}
    if client_sync == "handoff":
        settings |= {"forget": "class:2;client:1", "distribution": "iid"}
    run = thin_run(3, share=6, strategy="vanilla", unlearning=method, **settings)
    equals_the_unsplit_network(run)
    asking = {client for one in run.prepared.forgettings for client in one.clients}
    everybody = {client: {passing[0] for passing in PASSES[method]} for client in range(3)}
    for client in everybody.keys() - asking:
        everybody[client] -= {"ascent"}
    assert stages_trained(run) == {
        (stage, client) for client, stages in everybody.items() for stage in stages
    }


def test_u_shaped_distillation_among_clients_equals_networks_with_one_trunk():
    equals_the_unsplit_network(
        thin_run(
            2,
            strategy="u-shaped",
            unlearning="distillation",
            client_sync="handoff",
            distribution="iid",
        )
    )


@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped"])
def test_distillation_of_a_network_with_batch_norm_and_dropout_equals_the_unsplit(
    large_digits, strategy
):
    equals_the_unsplit_network(
        thin_run(
            1,
            share=5,
            strategy=strategy,
            unlearning="distillation",
            model="vgg",
            dataset=large_digits,
        )
    )


# SplitFed: rounds that average, in another order of additions than here.


@pytest.mark.parametrize(
    ("version", "method", "forget"),
    [
        (1, "fine-tune", "class:2;client:1"),
        # Where rounding could carry a sample past the bound, few are made to climb.
        (1, "gradient-ascent", "class:2"),
        (1, "distillation", "class:2"),
        (2, "distillation", "class:2"),
    ],
)
def test_splitfed_equals_a_loop_that_averages(version, method, forget):
    run = thin_run(
        3,
        share=6,
        strategy="splitfed",
        splitfed_version=version,
        unlearning=method,
        distribution="iid",
        forget=forget,
    )
    network = averaged(run)
    close(run.server_state, network[1].state_dict())
    for client in range(3):
        close(run.client_state(client), network[0].state_dict())
    if method == "gradient-ascent":
        assert {client for stage, client in stages_trained(run) if stage == "ascent"} == {0}


# SplitWiper: the requesting client on its own, then the server from scratch.


@pytest.mark.parametrize("method", METHODS)
def test_splitwiper_s_requesting_client_goes_on_alone_and_the_server_starts_again(method):
    run = thin_run(3, strategy="splitwiper", unlearning=method, forget=FOLLOWING, pretrain_epochs=2)
    segments = [trained_alone(run, client, 2) for client in range(3)]
    for client in range(3):
        assert same_bits(run.client_state(client), segments[client].state_dict())
    # Smashed data of whole clients here, of groups of 64 there: kernels round another way.
    close(run.server_state, server_from_scratch(run, segments).state_dict())
    first, second, third = (phase["digests"]["clients"] for phase in run.phases)
    for before, after in ((first, second), (second, third)):
        assert {client for client in before if before[client] != after[client]} == {"0"}
    assert run.instructions("unlearn") == [(0, "forget"), (0, "forget")]
    # 128 float32 at the cut and an int64 label a sample, of those that are left.
    left = sum(map(len, run.prepared.plan.train))
    for phase, forgetting in zip(run.phases[1:], run.prepared.forgettings, strict=True):
        left -= len(forgetting.samples[0])
        assert phase["server"]["cache_bytes"] == left * (128 * 4 + 8)


# No unlearning at all.


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("vanilla", {"client_sync": "none"}),
        ("vanilla", {"client_sync": "handoff"}),
        ("u-shaped", {}),
        ("splitfed", {"splitfed_version": 1}),
        ("splitfed", {"splitfed_version": 2}),
        ("splitwiper", {"pretrain_epochs": 1}),
    ],
)
def test_none_changes_no_bit_and_the_next_request_is_answered_too(strategy, settings):
    run = thin_run(
        3,
        strategy=strategy,
        unlearning="none",
        distribution="iid",
        share=12,
        forget="samples:0.5@class:2;client:1",
        **settings,
    )
    assert [phase["request"] for phase in run.phases] == [
        None,
        "samples:0.5@class:2",
        "client:1",
    ]
    first, *others = (phase["digests"] for phase in run.phases)
    assert others == [first, first]
    assert len(first["clients"]) == 3
    assert run.instructions("unlearn") == [(0, "leave-out"), (1, "leave-out")]
    assert [phase["accuracy"]["per_client"] for phase in run.phases[1:]] == [
        run.phases[0]["accuracy"]["per_client"]
    ] * 2
    assert [phase["server"]["train_seconds"] for phase in run.phases[1:]] == [0, 0]


# Two requests in a row.
