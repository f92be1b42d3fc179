"""Where a link binds to, told from Ray's view of its nodes."""

from unittest.mock import patch

import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.placement import link_host, place
from split_unlearning.strategies.server.setting import Resources, SegmentSetting


def nodes(*addresses):
    return [{"Alive": True, "NodeManagerAddress": address} for address in addresses]


def host_on(found):
    with (
        patch("ray.nodes", return_value=found),
        patch("ray.util.get_node_ip_address", return_value="10.0.0.7"),
    ):
        return link_host()


def test_on_one_machine_it_is_loopback():
    assert host_on(nodes("10.0.0.7")) == "127.0.0.1"
    assert host_on(nodes("10.0.0.7", "10.0.0.7")) == "127.0.0.1"


def test_on_several_machines_it_is_the_address_of_this_node_and_never_every_address():
    assert host_on(nodes("10.0.0.7", "10.0.0.8")) == "10.0.0.7"


def test_a_machine_that_is_gone_does_not_count():
    gone = {"Alive": False, "NodeManagerAddress": "10.0.0.8"}
    assert host_on([*nodes("10.0.0.7"), gone]) == "127.0.0.1"


@pytest.mark.parametrize("resources", [(1, 0), (0, 0.5)])
def test_without_ray_nothing_can_be_reserved(resources):
    with pytest.raises(UserError, match="this run has none"):
        place(Resources(*resources), SegmentSetting("cnn", (1, 8, 8), 10, TrainingSettings()))
