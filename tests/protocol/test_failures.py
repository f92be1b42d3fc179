"""A client that fails ends the run with its name; it is not waited for."""

from unittest.mock import patch

import pytest
import torch

from split_unlearning.foundations.errors import UserError
from split_unlearning.strategies.heard import ClientFailureError
from tests.local_grid import LocalRun

SHORT = {"pretrain_epochs": 1, "server_epochs": 1}


def test_a_client_that_raises_is_named_with_phase_and_action():
    def broken(client, segment, *_):
        if client.client == 1:
            raise RuntimeError("out of memory")
        return segment

    with (
        patch("split_unlearning.clients.splitwiper.pretrain", broken),
        pytest.raises(ClientFailureError, match=r"client 1 .*phase learn .*'pretrain'.*out of mem"),
    ):
        LocalRun(3, strategy="splitwiper", **SHORT)


def test_smashed_data_that_does_not_fit_is_refused_with_its_shape():
    with (
        patch("split_unlearning.clients.vanilla.VanillaClient.step", send_nonsense),
        pytest.raises(ClientFailureError, match=r"client 0 .*'train'.*shape \(3, 7\)"),
    ):
        LocalRun(1, strategy="vanilla", forget="", **SHORT)


def send_nonsense(client, segment, optimiser, link, x, objective, targets):
    link.exchange({"smashed": torch.zeros(3, 7), "labels": torch.zeros(3, dtype=torch.int64)})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"forget_client": 3}, "forget-client"),
        ({"forget": "client:3"}, "client:3"),
        ({"forget": "class:eleven"}, "class:eleven"),
        ({"forget": "class:11"}, "class:11"),
        ({"forget": "client:0;client:1;client:2"}, "client:0;client:1;client:2"),
        ({"forget": "class:2;class:2"}, "class:2"),
        ({"model": "vgg"}, "vgg"),
    ],
)
def test_the_impossible_is_refused_before_anything_is_trained(settings, named):
    with (
        patch(
            "split_unlearning.simulations.server_app.place", side_effect=AssertionError("started")
        ),
        pytest.raises(UserError) as refusal,
    ):
        LocalRun(3, **{**SHORT, **settings})
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)
