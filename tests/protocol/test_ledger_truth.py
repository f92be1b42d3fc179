"""What the ledger says is what was sent, measured apart from it."""

from collections import Counter
from unittest.mock import patch

import pytest
from flwr.common.serde import recorddict_to_proto

from split_unlearning.clients import base
from split_unlearning.transport.frame import encode
from split_unlearning.transport.ledger import NetworkSpeed
from tests.local_grid import LocalRun, client_of


def message_sizes(run, phase):
    """Sum up the serialised messages of a phase by client: up, down, how many."""
    up, down, count = Counter(), Counter(), Counter()
    for node_id, content, answer in run.grid.sent:
        for name, fields in content.config_records.items():
            if name in ("fitins.config", "evaluateins.config") and fields["phase"] == phase:
                client = client_of(node_id)
                up[client] += len(recorddict_to_proto(answer).SerializeToString())
                down[client] += len(recorddict_to_proto(content).SerializeToString())
                count[client] += 1
    return up, down, count


def test_splitwiper_bytes_are_those_of_the_messages():
    run = LocalRun(
        3,
        forget="class:2",
        pretrain_epochs=1,
        server_epochs=1,
        upload_chunk_mb=0.05,
        bandwidth_mbps=8.0,
        latency_ms=20.0,
    )
    for phase in run.phases:
        up, down, count = message_sizes(run, phase["phase"])
        for client in phase["clients"]:
            who = client["client"]
            assert client["bytes_up"] == up[who]
            assert client["bytes_down"] == down[who]
            assert client["messages"] == count[who]
            assert client["transmission_seconds"] == pytest.approx(
                (up[who] + down[who]) * 8 / 8e6 + 0.02 * count[who]
            )
    up, down, count = message_sizes(run, "evaluate")
    for kind, sums in (("bytes_up", up), ("bytes_down", down), ("messages", count)):
        for client in range(3):
            counted = sum(phase["clients"][client]["evaluation"][kind] for phase in run.phases)
            assert counted == sums[client]


def test_vanilla_bytes_are_those_of_the_messages_and_the_frames():
    frames_up, frames_down, frames = Counter(), Counter(), Counter()
    connect = base.connect

    def recorded(endpoint, client, phase, *codec):
        link = connect(endpoint, client, phase, *codec)
        exchange = link.exchange

        def counted(tensors, fields=None):
            reply = exchange(tensors, fields)
            frames_up[phase, client] += len(encode(tensors, fields))
            frames_down[phase, client] += len(encode(*reply))
            frames[phase, client] += 1
            return reply

        link.exchange = counted
        return link

    with patch("split_unlearning.clients.base.connect", recorded):
        run = LocalRun(2, strategy="vanilla", forget="class:2", server_epochs=2)
    for phase in run.phases:
        up, down, count = message_sizes(run, phase["phase"])
        for client in phase["clients"]:
            who = client["client"]
            key = phase["phase"], who
            assert client["bytes_up"] == up[who] + frames_up[key]
            assert client["bytes_down"] == down[who] + frames_down[key]
            assert client["messages"] == count[who] + frames[key]
            assert frames[key] > 0


def test_a_segment_that_is_not_handed_on_never_leaves_its_client():
    for client_sync, leaves in (("none", False), ("handoff", True)):
        run = LocalRun(2, strategy="vanilla", forget="", server_epochs=1, client_sync=client_sync)
        sent = [
            name
            for _, _, answer in run.grid.sent
            for name, fields in answer.config_records.items()
            if name == "fitres.metrics" and "segment/" in str(fields["tensors"])
        ]
        assert bool(sent) == leaves


def test_the_paper_s_transmission_time_of_the_way_up():
    # 10,000 images of 2,048 float32 at 100 Mbps: the paper publishes about 6.4 s.
    assert NetworkSpeed().seconds(10_000 * 2048 * 4, messages=0) == pytest.approx(6.55, abs=0.01)
