"""Who computes on which GPU: Flower's client pool and the server segment, on pretended GPUs."""

import os

import pytest
import ray
from flwr.simulation.ray_transport.ray_actor import BasicActorPool

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.launching.client_pool import clients_of
from split_unlearning.strategies.server.placement import place, release
from split_unlearning.strategies.server.setting import Resources
from tests.flower.test_placement import SEGMENT, start_cluster, wait_for_free

pytestmark = [pytest.mark.flower, pytest.mark.slow]

CPUS, GPUS = 4, 2


@ray.remote
class Client:
    """A process of Flower's client pool."""

    def devices(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.fixture(scope="module")
def machine():
    """One machine with pretended GPUs."""
    nodes = start_cluster(num_cpus=CPUS, num_gpus=GPUS)
    ray.init(address=nodes.address, log_to_driver=False)
    yield
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def pool(machine):
    """Fill Flower's pool with processes that reserve a share of a GPU."""
    made = []

    def make(share):
        flowers = BasicActorPool(Client, {"num_cpus": 1, "num_gpus": share}, {})
        flowers.add_actors_to_pool(flowers.actors_capacity)
        made.extend(flowers.pool)
        return flowers.pool

    yield make
    for actor in made:
        ray.kill(actor)
    wait_for_free(CPUS, GPUS)


@pytest.fixture
def segment(pool):
    """Place a server segment beside the clients; return the GPUs that its process sees."""
    placed = []

    def make(share):
        placed.append(place(Resources(0, share), SEGMENT))
        asked = placed[-1].actor.__ray_call__.remote(lambda _: os.environ["CUDA_VISIBLE_DEVICES"])
        return ray.get(asked)

    yield make
    for server in placed:
        release(server)


def seen_by(clients):
    return sorted(ray.get([client.devices.remote() for client in clients], timeout=60))


@pytest.mark.parametrize(
    ("share", "seen"),
    [(0, ["", "", "", ""]), (0.5, ["0", "0", "1", "1"]), (1, ["0", "1"]), (2, ["0,1"])],
)
def test_as_many_clients_work_at_a_time_as_there_are_shares(pool, share, seen):
    assert seen_by(pool(share)) == seen
    assert clients_of((CPUS, GPUS), 1, share) == (len(seen), len(seen))


def test_clients_and_server_share_a_gpu_where_their_shares_fit(pool, segment):
    # Four clients, which is all that the CPUs are for, take a GPU together.
    clients = pool(0.25)
    assert segment(0.5) in {"0", "1"}
    assert segment(0.25) in {"0", "1"}
    wait_for_free(0, 0.25)
    assert set(seen_by(clients)) <= {"0", "1"}


def test_the_server_keeps_to_a_gpu_of_its_own_where_it_reserves_all_of_it(pool, segment):
    wait_for_free(CPUS, GPUS)
    mine = segment(1)
    clients = [Client.options(num_cpus=1, num_gpus=0.25).remote() for _ in range(CPUS)]
    try:
        assert set(seen_by(clients)) == {"0", "1"} - {mine}
    finally:
        for client in clients:
            ray.kill(client)


def test_a_server_that_asks_for_none_sees_none(pool, segment):
    pool(0.5)
    assert segment(0) == ""


def test_what_the_clients_leave_nothing_for_is_refused_with_the_numbers(pool, segment):
    seen_by(pool(0.5))
    wait_for_free(0, 0)
    with pytest.raises(
        UserError, match=r"server-num-gpus=0.5 do not fit beside .* 0 CPUs and 0 GPUs are free"
    ):
        segment(0.5)


def test_a_share_that_no_gpu_divides_into_leaves_flower_waiting_for_a_process(pool):
    # Which is why the command line refuses it.
    clients = pool(0.6)
    assert clients_of((CPUS, GPUS), 1, 0.6) == (len(clients), 2) == (3, 2)
    started, waiting = ray.wait([one.devices.remote() for one in clients], num_returns=2)
    assert sorted(ray.get(started)) == ["0", "1"]
    assert ray.wait(waiting, timeout=2) == ([], waiting)
