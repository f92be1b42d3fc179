"""The server segment as a Ray actor, with pretended GPUs and several pretended machines."""

import os
import time

import numpy as np
import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.placement import ServerLostError, place, release
from split_unlearning.strategies.server.segment import LocalSegment
from split_unlearning.strategies.server.setting import Resources, SegmentSetting
from split_unlearning.strategies.server.shards import Shards
from split_unlearning.transport.link import Endpoint
from split_unlearning.transport.socket_link import connect

pytestmark = pytest.mark.flower

SEGMENT = SegmentSetting("cnn", (1, 8, 8), 10, TrainingSettings(seed=7))


@pytest.fixture(scope="module")
def cluster():
    """A node for clients, and one with two pretended GPUs."""
    nodes = start_cluster(num_cpus=2, num_gpus=0)
    patiently(nodes.add_node, num_cpus=0, num_gpus=2)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def start_cluster(**head):
    """Start a Ray cluster of one node."""
    return patiently(lambda **node: Cluster(initialize_head=True, head_node_args=node), **head)


def patiently(start, **what):
    """Start a node; Ray gives that 30 seconds, which a busy machine can take: then once more."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and what.get("num_gpus"):
        pytest.skip("this machine has GPUs, hidden from tests: Ray pretends to have none")
    for _ in range(3):
        try:
            return start(**what)
        except Exception as error:
            if "timed out" not in str(error).lower():
                raise
            late = error
    raise late


@pytest.fixture
def segment(cluster):
    """Place a server segment and release it afterwards."""
    placed = []

    def make(num_cpus, num_gpus):
        placed.append(place(Resources(num_cpus, num_gpus), SEGMENT))
        return placed[-1]

    yield make
    for server in placed:
        release(server)
    wait_for_free(cpus=2, gpus=2)


def wait_for_free(cpus, gpus):
    """Wait until Ray's view of what is free, which lags behind, has come to this."""
    deadline = time.monotonic() + 30
    while True:
        free = ray.available_resources()
        if (free.get("CPU", 0), free.get("GPU", 0)) == (cpus, gpus):
            return
        assert time.monotonic() < deadline, free
        time.sleep(0.05)


def test_it_takes_nothing_by_default_and_computes_what_one_process_computes(segment):
    server = segment(0, 0)
    wait_for_free(cpus=2, gpus=2)
    assert server.call(ServerModel.digest) == LocalSegment(SEGMENT).call(ServerModel.digest)


def test_it_takes_the_fraction_of_a_gpu_it_asks_for(segment):
    segment(0, 0.5)
    wait_for_free(cpus=2, gpus=1.5)
    segment(0, 1)
    wait_for_free(cpus=2, gpus=0.5)
    with pytest.raises(UserError, match=r"server-num-gpus=1 do not fit .*2 CPUs and 0.5 GPUs are"):
        segment(0, 1)


@pytest.mark.parametrize("wanted", [(3, 0), (0, 4), (1, 1)])
def test_what_can_never_be_scheduled_is_refused_with_the_numbers(segment, wanted):
    cpus, gpus = wanted
    with pytest.raises(
        UserError,
        match=rf"server-num-cpus={cpus} and server-num-gpus={gpus} are more than any node .*"
        "it has 2 CPUs and 2 GPUs",
    ):
        segment(cpus, gpus)


def test_its_link_serves_a_client_on_loopback_when_all_is_on_one_machine(segment):
    server = segment(0, 0)
    endpoint = Endpoint.from_fields(server.call(ServerLink.open))
    assert endpoint.target.startswith("127.0.0.1:")
    assert endpoint.certificate == ""
    batch = {"smashed": torch.ones(4, 8, 4, 4), "labels": torch.arange(4)}
    with connect(endpoint.of(3), client=3, phase="learn") as link:
        reply, _ = link.exchange(batch)
    assert reply["gradient"].shape == (4, 8, 4, 4)
    ((client, phase, account),) = server.call(ServerLink.take_ledger)
    assert (client, phase, account.messages) == (3, "learn", 1)
    assert server.call(Clock.take) > 0


def test_what_the_segment_raises_arrives_as_it_was_raised(segment):
    server = segment(0, 0)
    with pytest.raises(ValueError, match=r"^client 3 sent chunk 1 after 0 chunks$"):
        server.call(
            Shards.add,
            3,
            1,
            np.ones((2, 8, 4, 4), np.float32),
            np.arange(2),
            np.arange(2, dtype=np.int64),
        )
    assert server.call(KeptState.bytes_of_caches) == 0


def ask_for_a_minute(server):
    """Ray ends a process soon, not at once: until then it answers."""
    for _ in range(600):
        server.call(ServerModel.digest)
        time.sleep(0.1)


def test_a_segment_whose_process_is_gone_says_so_and_can_be_released(segment):
    server = segment(0, 0)
    ray.kill(server.actor)
    with pytest.raises(ServerLostError, match="the server segment is lost: its process or"):
        ask_for_a_minute(server)
    release(server)
