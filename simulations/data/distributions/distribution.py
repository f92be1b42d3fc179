"""What a distribution is: a way to deal a data set out to clients, with settings of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.options import Options, Owner
from split_unlearning.simulations.data.distributions.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Dealing:
    """The labels of both splits, shape (samples,), and the clients to deal them out to.

    `task_of_label`, shape (classes,), counts tasks from 0. The requesting client asks to forget the
    forgotten labels. Every random draw follows from the seed, which is not negative.

    Raises
    ------
    UserError
        If there is no such client or label.
    """

    y_train: NDArray[np.int64]
    y_test: NDArray[np.int64]
    task_of_label: NDArray[np.int64]
    num_clients: int
    requesting_client: int = 0
    forgotten_labels: frozenset[int] = frozenset()
    options: Options = field(default_factory=Options)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_clients < 1:
            raise refuse("num-supernodes", self.num_clients, "an integer >= 1")
        if not 0 <= self.requesting_client < self.num_clients:
            allowed = f"0 to {self.num_clients - 1}, for num-supernodes={self.num_clients}"
            raise refuse("forget-client", self.requesting_client, allowed)
        for label in sorted(self.forgotten_labels):
            if not 0 <= label < self.num_classes:
                allowed = f"a label from 0 to {self.num_classes - 1}"
                raise refuse("forget", f"class:{label}", allowed)

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.task_of_label)


class Distribution(Owner, ABC):
    """A way to deal a data set out; the first line of its docstring stands in lists."""

    name: ClassVar[str]
    several_tasks: ClassVar[bool] = False
    """Whether it deals data sets that are joined, each of them to other clients."""

    @classmethod
    @abstractmethod
    def deal(cls, dealing: Dealing) -> Plan:
        """Deal the samples out, each to exactly one client.

        No client is without a train sample; where there are few, some have no test sample.

        Raises
        ------
        UserError
            If a client would be left without a train sample, or the samples cannot be dealt so.
        """
