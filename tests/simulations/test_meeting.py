"""Nodes that come one after the other, late, or never."""

import time
from unittest.mock import patch

import pytest

from split_unlearning.simulations.session import conversation
from split_unlearning.simulations.session.conversation import Conversation
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.transport.ledger import Ledger
from tests.local_grid import LocalGrid, node_of

CLIENTS = 3


class Late(LocalGrid):
    """One more node each time it is asked for them, after a pause; some never."""

    def __init__(self, never=()):
        super().__init__({}, CLIENTS)
        self.never = [node_of(client) for client in never]
        self.seen = 0

    def get_node_ids(self):
        time.sleep(0.02)
        self.seen += 1
        return [node for node in list(self.contexts)[: self.seen] if node not in self.never]


def meet(grid):
    with patch.object(conversation, "_NODES_SECONDS", 0.01):
        return Conversation(grid, Ledger(), round_timeout=60.0).meet()


def test_as_long_as_they_come_they_are_waited_for():
    assert meet(Late()) == CLIENTS


def test_two_nodes_that_are_the_same_client_are_no_two_clients():
    grid = Late()
    for context in list(grid.contexts.values())[1:]:
        context.node_config["partition-id"] = 1
    with pytest.raises(ClientFailureError, match=r"^2 of 3 clients came, and none for 0 seconds$"):
        meet(grid)


def test_who_never_comes_is_told():
    with pytest.raises(ClientFailureError, match=r"^2 of 3 clients came, and none for 0 seconds$"):
        meet(Late(never=[2]))
