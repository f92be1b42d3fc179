"""Several runs of ours in one of Flower's are what each is on its own, to the last bit and byte."""

import pytest

from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.server_app import carry_out
from split_unlearning.simulations.session.envelope import Envelope
from tests.local_grid import LocalGrid, LocalRun

CELLS = [
    (3, {"strategy": "splitwiper", "server-epochs": 2, "pretrain-epochs": 2}),
    (2, {"strategy": "vanilla", "server-epochs": 1, "unlearning": "fine-tune"}),
    (4, {"strategy": "splitwiper", "server-epochs": 2, "pretrain-epochs": 2, "seed": 1}),
    (2, {"strategy": "u-shaped", "server-epochs": 1}),
    (3, {"strategy": "splitwiper", "server-epochs": 2, "pretrain-epochs": 2}),
]


def phases_of(phases):
    """What of a result does not depend on clocks."""
    for phase in phases:
        yield phase["accuracy"], phase["digests"]
        for client in phase["clients"]:
            clocks = ("train_seconds", "pretrain_seconds")
            yield {key: value for key, value in client.items() if key not in clocks}


@pytest.fixture(scope="module")
def results():
    grid = LocalGrid({}, num_clients=4, in_flight=2)
    found = []
    for number, (clients, settings) in enumerate(CELLS):
        config = RunConfig.from_mapping(settings)
        envelope = Envelope(str(number), clients, config.as_mapping())
        found.append(carry_out(config, grid, lambda session: session.run().to_dict(), envelope))
    return found


@pytest.mark.parametrize("number", range(len(CELLS)))
def test_a_run_among_others_is_as_on_its_own(results, number):
    clients, settings = CELLS[number]
    alone = LocalRun(clients, **{key.replace("-", "_"): settings[key] for key in settings})
    assert list(phases_of(results[number]["phases"])) == list(phases_of(alone.phases))
    assert results[number]["clients"] == clients
    assert results[number]["config"] == alone.result["config"]


def test_the_same_again_starts_from_nothing(results):
    assert list(phases_of(results[0]["phases"])) == list(phases_of(results[-1]["phases"]))
