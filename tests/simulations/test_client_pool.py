"""Which shares clients may reserve, against Flower's own count of its processes."""

from unittest.mock import patch

import pytest
from flwr.simulation.ray_transport.ray_actor import pool_size_from_resources
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.launching.client_pool import (
    check_client_pool,
    check_fits,
    clients_of,
)

NODES = st.tuples(st.integers(0, 64), st.integers(0, 8))
SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.6, 0.75, 1.0, 2.0, 3.0])


@given(NODES, st.integers(1, 8), SHARES)
def test_flower_starts_as_many_as_it_is_expected_to(node, cpus, gpus):
    resources = {"CPU": float(node[0]), "GPU": float(node[1])}
    with patch("ray.nodes", return_value=[{"Resources": resources}]):
        try:
            started = pool_size_from_resources({"num_cpus": cpus, "num_gpus": gpus})
        except ValueError:  # it has none
            started = 0
    expected, possible = clients_of(node, cpus, gpus)
    assert started == expected
    # Ray gives out a GPU in ten thousandths.
    per_gpu = 10_000 // max(1, round(gpus * 10_000))
    slots = per_gpu * node[1] if gpus <= 1 else node[1] // gpus
    assert possible == (min(node[0] // cpus, slots) if gpus else node[0] // cpus)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "said"),
    [
        ([(2, 0)], 3, 0, "--client-cpus=3 is not possible; allowed: at most 2, what a node has"),
        ([], 1, 0, "--client-cpus=1 is not possible; allowed: at most 0, what a node has"),
        ([(8, 0), (0, 2)], 1, 4, "--client-gpus=4 is not possible; allowed: at most 2, what a"),
        ([(8, 0), (0, 2)], 1, 1, "--client-gpus=1 is not possible; allowed: what a node has bes"),
        (
            [(8, 2)],
            1,
            0.6,
            "--client-gpus=0.6 is not possible; allowed: a share that divides a GPU, such as 0.5 "
            "or 1: of 2 GPUs Flower would give it to 3 clients, and Ray can to 2",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_numbers(nodes, cpus, gpus, said):
    with pytest.raises(UserError) as refused:
        check_fits(nodes, cpus, gpus, "a node")
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("gpus", [0, 0.5, 0.6, 0.75, 1])
def test_one_gpu_can_be_shared_as_one_likes(gpus):
    check_fits([(8, 1)], 1, gpus, "a node")


@pytest.mark.parametrize("gpus", [-1, 1.5, float("nan"), float("inf")])
def test_parts_of_several_gpus_are_no_share(gpus):
    with pytest.raises(UserError, match=r"--client-gpus=.* 0 <= x <= 1, or a whole number"):
        check_client_pool(5, 1, gpus)


def test_a_cluster_is_asked_what_its_nodes_have(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with patch(
        "split_unlearning.strategies.server.placement.nodes_at",
        return_value=[(0.0, 0.0), (4.0, 2.0)],
    ) as asked:
        check_client_pool(5, 2, 0.5)
        with pytest.raises(UserError, match="at most 2, what a node of this cluster has"):
            check_client_pool(5, 2, 3)
    asked.assert_called_with("10.0.0.1:6379")


def test_where_no_cluster_answers_is_told_at_once(monkeypatch):
    # Nobody listens on port 1.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS='127.0.0.1:1' is not possible"):
        check_client_pool(5, 1, 0)
