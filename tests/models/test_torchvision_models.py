"""torchvision's models as rows of layers: cut where one tensor goes on, computing the same."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.fitting import check_fits
from split_unlearning.models.group_norm import with_group_norm
from split_unlearning.models.network import Network
from split_unlearning.models.split import (
    CutModel,
    build_network,
    build_segment,
    seeded,
    segment_with,
    smashed_shape,
)
from split_unlearning.models.torchvision_models import torchvision_model
from split_unlearning.unlearning.exactness import digest

IMAGE = (3, 32, 32)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny batches do not gain from threads, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def both(name):
    """Return a network and torchvision's own model of the same weights."""
    with seeded(3):
        network = build_network(f"torchvision:{name}", IMAGE, 10)
    with seeded(3):
        theirs = models.get_model(name, weights=None, num_classes=10)
    return network, theirs


# One with residual blocks, one with squeeze-and-excitation, dropout and a functional pooling, one
# that splits a tensor in two.
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_layers_compute_what_torchvision_does(name):
    network, theirs = both(name)
    whole = network.whole()
    x = images(1, 4, *IMAGE)
    for training in (False, True):
        whole.train(training)
        theirs.train(training)
        with seeded(5):
            ours = whole(x)
        with seeded(5):
            torch.testing.assert_close(ours, theirs(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in whole.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_gradients_are_those_of_torchvision():
    network, theirs = both("resnet18")
    whole = network.whole().train()
    theirs.train()
    x = images(2, 4, *IMAGE)
    for model in (whole, theirs):
        model(x).square().sum().backward()
    ours = {p.grad.norm().item() for p in whole.parameters()}
    for parameter in theirs.parameters():
        assert min(abs(parameter.grad.norm().item() - one) for one in ours) < 1e-2


def test_residual_blocks_are_cut_behind_and_never_inside():
    names = list(build_network("torchvision:resnet18", IMAGE, 10).layers)
    assert names[:4] == ["conv1", "bn1", "relu", "maxpool"]
    assert {"layer1.0", "layer1", "layer2", "layer3", "layer4"} < set(names)
    assert names[-3:] == ["avgpool", "flatten", "fc"]
    assert not any("conv" in name or "bn" in name for name in names[2:])


@pytest.mark.parametrize("cut", ["conv1", "layer1.0", "layer2"])
def test_the_segments_are_the_network_cut_at_the_layer(cut):
    chosen = CutModel("torchvision:resnet18", cut=cut)
    with seeded(3):
        network = build_network(chosen, IMAGE, 10)
    whole = network.whole().eval()
    client, server = network.segment("client"), network.segment("server")
    x = images(3, 2, *IMAGE)
    assert torch.equal(server(client(x)), whole(x))
    assert smashed_shape(chosen, IMAGE, 10) == tuple(client(x).shape[1:])
    assert not set(client.state_dict()) & set(server.state_dict())


def test_a_cut_reaches_as_far_as_torchvisions_layer_of_that_name():
    network, theirs = both("resnet18")
    theirs.eval()
    seen = []
    theirs.layer2.register_forward_hook(lambda _, __, output: seen.append(output))
    x = images(4, 2, *IMAGE)
    theirs(x)
    client = Network(network.layers, cut="layer2").segment("client").eval()
    torch.testing.assert_close(client(x), seen[0])


def test_weights_go_from_one_segment_to_another():
    chosen = CutModel("torchvision:resnet18", cut="layer1", client_norm="group")
    weights = build_segment("client", chosen, IMAGE, 10, seed=1).state_dict()
    again = segment_with("client", chosen, IMAGE, 10, weights)
    assert digest(again.state_dict()) == digest(weights)
    assert digest(copy.deepcopy(again).state_dict()) == digest(weights)


@pytest.mark.parametrize("cut", ["", "layer9", "layer1.0.conv1", "fc"])
def test_a_wrong_cut_lists_the_possible_ones(cut):
    with pytest.raises(UserError) as refused:
        check_fits(CutModel("torchvision:resnet18", cut=cut), IMAGE, 10)
    message = str(refused.value)
    assert message.startswith(f"cut={cut!r} is not possible; allowed: conv1, bn1, relu, maxpool")
    assert message.endswith("avgpool, flatten")
    assert "\n" not in message


def test_a_tensor_that_is_split_in_two_is_no_place_to_cut():
    names = list(build_network("torchvision:shufflenet_v2_x0_5", IMAGE, 10).layers)
    assert "stage2.0" in names
    assert not any("chunk" in name for name in names)


def test_grey_images_enter_a_model_for_coloured_ones():
    chosen = CutModel("torchvision:resnet18", cut="conv1")
    check_fits(chosen, (1, 28, 28), 10)
    assert smashed_shape(chosen, (1, 28, 28), 10) == (64, 14, 14)


@pytest.mark.parametrize(("name", "hint"), [("resnet81", "resnet18"), ("", "resnet18"), ("x", "v")])
def test_an_unknown_name_is_refused_with_some_that_there_are(name, hint):
    with pytest.raises(UserError) as refused:
        torchvision_model(name)
    assert str(refused.value).startswith(f"model='torchvision:{name}' is not possible; allowed: ")
    assert hint in str(refused.value)


def test_batch_norm_on_the_clients_side_is_refused_with_the_layer_and_the_remedy():
    with pytest.raises(UserError) as refused:
        check_fits(CutModel("torchvision:resnet18", cut="layer1"), IMAGE, 10)
    message = str(refused.value)
    assert "BatchNorm2d (bn1.bn1)" in message
    assert "client-norm='group'" in message
    check_fits(CutModel("torchvision:resnet18", cut="layer1", client_norm="group"), IMAGE, 10)


def test_stochastic_depth_on_the_clients_side_is_refused():
    chosen = CutModel("torchvision:efficientnet_b0", cut="features.2", client_norm="group")
    with pytest.raises(UserError, match="StochasticDepth"):
        check_fits(chosen, IMAGE, 10)


def test_group_norm_takes_the_place_of_batch_norm_up_to_the_cut_alone():
    chosen = CutModel("torchvision:resnet18", cut="layer1", client_norm="group")
    network = build_network(chosen, IMAGE, 10)
    client, server = network.segment("client"), network.segment("server")

    def kinds(segment):
        return {type(layer) for layer in segment.modules()} & {nn.GroupNorm, nn.BatchNorm2d}

    assert kinds(client) == {nn.GroupNorm}
    assert kinds(server) == {nn.BatchNorm2d}
    for layer in client.modules():
        if isinstance(layer, nn.GroupNorm):
            assert (layer.num_groups, layer.num_channels) == (32, 64)
    x = images(5, 3, *IMAGE)
    # What one image gives does not depend on those beside it.
    torch.testing.assert_close(client.train()(x)[:1], client.train()(x[:1]))


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (6, 1), (8, 4), (24, 4), (512, 32)]
)
def test_groups_divide_the_channels_and_hold_two_or_more(channels, groups):
    layers = {"first": nn.Sequential(nn.BatchNorm2d(channels)), "last": nn.Flatten()}
    norm = with_group_norm(Network(layers, cut="first")).layers["first"][0]
    assert (norm.num_groups, norm.num_channels) == (groups, channels)


def test_adaptive_pooling_to_one_cell_is_a_mean():
    for name in ("resnet18", "mobilenet_v3_small"):
        network = build_network(f"torchvision:{name}", IMAGE, 10)
        assert not any(
            isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))
            for layer in list(network.layers.values())[-1].modules()
        )
        graph = "".join(getattr(layer, "code", "") for layer in network.layers.values())
        assert "torch.mean" in graph
