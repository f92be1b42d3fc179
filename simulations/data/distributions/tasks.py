"""Clients with different tasks: each holds samples of one of several data sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.simulations.data.distributions.distribution import Dealing, Distribution
from split_unlearning.simulations.data.distributions.labels import HomogeneousLabels
from split_unlearning.simulations.data.distributions.plan import Plan


class DifferentTasks(Distribution):
    """Each client holds one of the data sets of dataset=A+B."""

    name = "different-tasks"
    several_tasks = True

    @classmethod
    def deal(cls, dealing: Dealing) -> Plan:
        """Deal each task's samples to its clients, as ``homogeneous-labels`` does.

        Raises
        ------
        UserError
            If there are fewer clients than tasks, a label to forget is not of the requesting
            client's task, or a client would be left without a train sample.
        """
        task_of_label, requesting = dealing.task_of_label, dealing.requesting_client
        tasks = tasks_of_clients(dealing.num_clients, int(task_of_label.max()) + 1)
        asked = tasks[requesting]
        own = np.flatnonzero(task_of_label == asked)
        for label in sorted(dealing.forgotten_labels):
            if label not in own:
                allowed = f"a label of the task of forget-client={requesting}: {own.tolist()}"
                raise refuse("forget", f"class:{label}", allowed)

        train: list[NDArray[np.int64]] = []
        test: list[NDArray[np.int64]] = []
        for task in range(tasks[-1] + 1):
            of_task = task_of_label == task
            rows = np.flatnonzero(of_task[dealing.y_train])
            test_rows = np.flatnonzero(of_task[dealing.y_test])
            plan = HomogeneousLabels.deal(
                replace(
                    dealing,
                    y_train=dealing.y_train[rows],
                    y_test=dealing.y_test[test_rows],
                    num_clients=int((tasks == task).sum()),
                    requesting_client=requesting - len(train) if task == asked else 0,
                    forgotten_labels=dealing.forgotten_labels if task == asked else frozenset(),
                    seed=derive_seed(dealing.seed, "task", task),
                )
            )
            train += [rows[places] for places in plan.train]
            test += [test_rows[places] for places in plan.test]
        return Plan(tuple(train), tuple(test))


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
