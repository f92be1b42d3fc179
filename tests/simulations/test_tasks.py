"""Which client has which task."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.data.distributions.tasks import tasks_of_clients
from tests.dealing import dealt_out


def test_five_clients_and_two_tasks_are_the_papers_three_and_two() -> None:
    assert tasks_of_clients(5, 2).tolist() == [0, 0, 0, 1, 1]


@given(num_tasks=st.integers(1, 8), more=st.integers(0, 40))
def test_tasks_are_even_in_order_and_none_is_left_out(num_tasks: int, more: int) -> None:
    clients = num_tasks + more
    tasks = tasks_of_clients(clients, num_tasks)
    sizes = np.bincount(tasks, minlength=num_tasks)
    assert len(tasks) == clients
    assert len(sizes) == num_tasks
    assert (np.diff(tasks) >= 0).all()
    assert (np.diff(sizes) <= 0).all()
    assert sizes.max() - sizes.min() <= 1


def test_fewer_clients_than_tasks_are_refused() -> None:
    with pytest.raises(UserError, match=r"num-supernodes=1.*at least 2"):
        tasks_of_clients(1, 2)


@given(clients=st.integers(2, 7), seed=st.integers(0, 99), data=st.data())
def test_every_sample_is_dealt_once_and_to_a_client_of_its_task(
    clients: int, seed: int, data: st.DataObject
) -> None:
    requesting = data.draw(st.integers(0, clients - 1))
    task_of_label = np.array([0, 0, 1, 1, 1])
    tasks = tasks_of_clients(clients, 2)
    forgotten = int(np.flatnonzero(task_of_label == tasks[requesting])[0])
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(5), 20))
    plan = dealt_out(
        labels,
        labels,
        distribution="different-tasks",
        task_of_label=task_of_label,
        num_clients=clients,
        requesting_client=requesting,
        forgotten_labels=frozenset({forgotten}),
        seed=seed,
    )
    for held in (plan.train, plan.test):
        assert np.array_equal(np.sort(np.concatenate(held)), np.arange(len(labels)))
        for client, ids in enumerate(held):
            assert (task_of_label[labels[ids]] == tasks[client]).all()
            assert (forgotten in labels[ids]) == (client == requesting)


def test_a_label_of_another_task_than_the_requesting_clients_is_refused() -> None:
    labels = np.repeat(np.arange(4), 10)
    with pytest.raises(UserError, match=r"forget='class:3'"):
        dealt_out(
            labels,
            labels,
            distribution="different-tasks",
            task_of_label=np.array([0, 0, 1, 1]),
            num_clients=5,
            requesting_client=0,
            forgotten_labels=frozenset({3}),
            seed=0,
        )
