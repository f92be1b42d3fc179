"""Clients with different tasks: each holds samples of one of several data sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.simulations.data.distributions.labels import make_plan
from split_unlearning.simulations.data.distributions.plan import Plan

DIFFERENT_TASKS = {"different-tasks": "each client holds one of the data sets of dataset=A+B"}


def tasks_of_clients(num_clients: int, num_tasks: int) -> NDArray[np.int64]:
    """Return the task of each client, shape (num_clients,), as even as possible, in order.

    Five clients and two tasks are three clients of the first task and two of the second, as in the
    SplitWiper paper's ``different tasks``.

    Raises
    ------
    UserError
        If there are fewer clients than tasks.
    """
    if num_clients < num_tasks:
        raise refuse("num-supernodes", num_clients, f"at least {num_tasks}, one for each task")
    even, more = divmod(num_clients, num_tasks)
    sizes = even + (np.arange(num_tasks) < more)
    return np.repeat(np.arange(num_tasks, dtype=np.int64), sizes)


def plan_of_tasks(
    y_train: NDArray[np.int64],
    y_test: NDArray[np.int64],
    *,
    task_of_label: NDArray[np.int64],
    num_clients: int,
    requesting_client: int,
    forgotten_labels: frozenset[int],
    seed: int,
) -> Plan:
    """Deal each task's samples to its clients, as ``homogeneous-labels`` does.

    `task_of_label`, shape (classes,), counts tasks from 0; the rest is as in `make_plan`.

    Raises
    ------
    UserError
        If there are fewer clients than tasks, a label to forget is not of the requesting client's
        task, or a client would be left without a train sample.
    """
    if not 0 <= requesting_client < num_clients:
        raise refuse("forget-client", requesting_client, f"0 to {num_clients - 1}")
    tasks = tasks_of_clients(num_clients, int(task_of_label.max()) + 1)
    asked = tasks[requesting_client]
    own = np.flatnonzero(task_of_label == asked)
    for label in sorted(forgotten_labels):
        if label not in own:
            allowed = f"a label of the task of forget-client={requesting_client}: {own.tolist()}"
            raise refuse("forget", f"class:{label}", allowed)

    train: list[NDArray[np.int64]] = []
    test: list[NDArray[np.int64]] = []
    for task in range(tasks[-1] + 1):
        of_task = task_of_label == task
        rows, test_rows = np.flatnonzero(of_task[y_train]), np.flatnonzero(of_task[y_test])
        plan = make_plan(
            y_train[rows],
            y_test[test_rows],
            num_classes=len(task_of_label),
            distribution="homogeneous-labels",
            num_clients=int((tasks == task).sum()),
            requesting_client=requesting_client - len(train) if task == asked else 0,
            forgotten_labels=forgotten_labels if task == asked else frozenset(),
            seed=derive_seed(seed, "task", task),
        )
        train += [rows[places] for places in plan.train]
        test += [test_rows[places] for places in plan.test]
    return Plan(tuple(train), tuple(test))
