"""Cuts, first weights and what a model must fit."""

import sys
from collections import OrderedDict
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from torch import nn

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.cnn import cnn
from split_unlearning.models.fitting import check_fits
from split_unlearning.models.inputs import example
from split_unlearning.models.network import Network
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import (
    MODELS,
    CutModel,
    build_network,
    build_segment,
    segment_with,
    smashed_shape,
)
from split_unlearning.models.vgg import vgg
from split_unlearning.unlearning.exactness import digest

# Every built-in model, with a shape it takes.
SHAPES = {"bert": (12,), "cnn": (1, 8, 8), "resnet18": (3, 16, 16), "vgg": (3, 32, 32)}


def installed(model):
    """Return a model's name; skip the test if what it needs is not installed."""
    if model == "bert":
        pytest.importorskip("transformers", reason="the extra [text] is not installed")
    return model


@pytest.fixture(params=SHAPES)
def model(request):
    return installed(request.param)


@pytest.fixture(params=["bert", "cnn"])
def without_batch_norm(request):
    return installed(request.param)


def layers():
    return OrderedDict(
        first=nn.Linear(4, 3), second=nn.ReLU(), third=nn.Linear(3, 5), last=nn.Linear(5, 2)
    )


@pytest.fixture
def toy(monkeypatch):
    """Return a function that makes an architecture nameable by a dotted path."""
    module = ModuleType("toy_models")
    monkeypatch.setitem(sys.modules, "toy_models", module)

    def name(architecture):
        module.toy = architecture
        return "toy_models:toy"

    return name


def test_every_built_in_model_is_listed_here():
    assert sorted(SHAPES) == MODELS.names()


@pytest.mark.parametrize("cut", ["first", "second", "third"])
def test_the_segments_one_after_the_other_are_the_whole_network(cut):
    network = Network(layers(), cut=cut)
    client, server = map(network.segment, ("client", "server"))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    smashed = client(x)
    assert torch.equal(server(smashed), network.whole()(x))
    names = list(network.layers)
    assert [name for name, _ in client.named_children()] == names[: names.index(cut) + 1]
    assert [name for name, _ in server.named_children()] == names[names.index(cut) + 1 :]


def test_a_built_in_model_is_cut_without_changing_what_it_computes(model):
    shape = SHAPES[model]
    network = MODELS.get(model)(shape, 7)
    whole = network.whole().eval()
    client, server = map(network.segment, ("client", "server"))
    x = example(shape, 3)
    assert torch.equal(server(client(x)), whole(x))
    assert whole(x).shape == (3, 7)
    together = {*client.state_dict(), *server.state_dict()}
    assert together == set(whole.state_dict())
    assert not set(client.state_dict()) & set(server.state_dict())


@pytest.mark.parametrize("cut", ["last", "fifth", ""])
def test_a_wrong_cut_lists_the_possible_ones(cut):
    with pytest.raises(UserError) as refused:
        Network(layers(), cut=cut).segment("server")
    message = str(refused.value)
    assert f"cut={cut!r}" in message
    assert message.endswith("allowed: first, second, third")


@pytest.mark.parametrize("head", ["third", "last", ""])
def test_behind_the_cut_a_u_shape_cuts_once_more(head):
    network = Network(layers(), cut="first", head=head)
    client, trunk, tail = map(network.segment, ("client", "trunk", "head"))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(tail(trunk(client(x))), network.whole()(x))
    assert next(iter(tail._modules)) == (head or "last")


@pytest.mark.parametrize("head", ["first", "second", "nowhere"])
def test_a_head_that_leaves_no_trunk_lists_the_possible_ones(head):
    with pytest.raises(UserError, match=f"head='{head}' is not possible; allowed: third, last"):
        Network(layers(), cut="first", head=head).segment("trunk")


@pytest.mark.parametrize("part", ["client", "server", "trunk", "head"])
def test_weights_follow_from_the_seed_alone(part, model):
    def weights(seed):
        return digest(build_segment(part, model, SHAPES[model], 4, seed=seed).state_dict())

    first = weights(3)
    torch.rand(7)
    assert weights(3) == first
    assert weights(4) != first


def test_both_sides_of_one_seed_are_the_two_parts_of_one_network():
    with seeded(9):
        whole = cnn((1, 8, 8), 10).whole()
    client = build_segment("client", "cnn", (1, 8, 8), 10, seed=9)
    server = build_segment("server", "cnn", (1, 8, 8), 10, seed=9)
    assert digest({**client.state_dict(), **server.state_dict()}) == digest(whole.state_dict())


def test_a_client_segment_takes_the_weights_it_is_given_and_keeps_them_apart(model):
    source, other = (build_segment("client", model, SHAPES[model], 4, seed=seed) for seed in (2, 3))
    before = torch.default_generator.get_state()
    given = segment_with("client", model, SHAPES[model], 4, source.state_dict())
    again = segment_with("client", model, SHAPES[model], 4, other.state_dict())
    assert torch.equal(torch.default_generator.get_state(), before)
    assert digest(given.state_dict()) == digest(source.state_dict())
    assert digest(again.state_dict()) == digest(other.state_dict())
    x = example(SHAPES[model], 2)
    assert torch.equal(given(x), source(x))
    assert all(parameter.requires_grad for parameter in given.parameters())


def test_tied_weights_stay_tied_and_buffers_that_are_not_saved_stay_there():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 1, 1)
            self.second = self.first
            self.register_buffer("twice", torch.tensor(2.0), persistent=False)

        def forward(self, x):
            return self.twice * self.second(self.first(x))

    def tied(input_shape, num_labels):
        layers = OrderedDict(
            tied=Doubled(), rest=nn.Sequential(nn.Flatten(), nn.Linear(64, num_labels))
        )
        return Network(layers, cut="tied")

    with patch.dict(MODELS._built_in, {"tied": tied}):
        source = build_segment("client", "tied", (1, 8, 8), 4, seed=2)
        given = segment_with("client", "tied", (1, 8, 8), 4, source.state_dict())
    assert len(list(given.parameters())) == 2
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(given(x), source(x))


def test_a_side_of_the_cut_with_nothing_to_learn_is_refused():
    def bare(input_shape, num_labels):
        layers = OrderedDict(
            pool=nn.AvgPool2d(2), rest=nn.Sequential(nn.Flatten(), nn.Linear(16, num_labels))
        )
        return Network(layers, cut="pool")

    with (
        patch.dict(MODELS._built_in, {"bare": bare}),
        pytest.raises(UserError, match="client's side of the cut='pool' nothing to learn"),
    ):
        check_fits("bare", (1, 8, 8), 4)


def test_a_network_too_short_for_a_u_shape_is_refused_for_that_alone():
    def short(input_shape, num_labels):
        layers = OrderedDict(
            first=nn.Conv2d(1, 2, 1), rest=nn.Sequential(nn.Flatten(), nn.Linear(128, num_labels))
        )
        return Network(layers, cut="first")

    with patch.dict(MODELS._built_in, {"short": short}):
        check_fits("short", (1, 8, 8), 4)
        with pytest.raises(UserError, match="head='rest' is not possible"):
            check_fits("short", (1, 8, 8), 4, "trunk")


@pytest.mark.parametrize(
    ("model", "shape", "crossing"),
    [
        ("vgg", (3, 32, 32), (8, 16, 16)),
        ("cnn", (1, 8, 8), (8, 4, 4)),
        ("cnn", (3, 9, 7), (8, 4, 3)),
    ],
)
def test_smashed_shape_is_what_a_client_sends(model, shape, crossing):
    assert smashed_shape(model, shape, 10) == crossing


def test_as_many_numbers_cross_the_cut_as_the_design_counts():
    assert torch.Size(smashed_shape("vgg", (3, 32, 32), 10)).numel() == 2048
    assert torch.Size(smashed_shape("cnn", (1, 8, 8), 10)).numel() == 128


def test_built_in_client_segments_are_deterministic_functions(model):
    check_fits(model, SHAPES[model], 10)
    client, server = map(MODELS.get(model)(SHAPES[model], 10).segment, ("client", "server"))
    kinds = {type(layer) for layer in client.modules()}
    if model == "bert":
        assert {layer.p for layer in client.modules() if isinstance(layer, nn.Dropout)} == {0.0}
        return
    assert kinds == {nn.Sequential, nn.Conv2d, nn.ReLU, nn.MaxPool2d}
    # A client segment without buffers, and the same in both modes.
    assert not list(client.buffers())
    if model == "vgg":
        kinds = {type(layer) for layer in server.modules()}
        assert {nn.BatchNorm2d, nn.Dropout} <= kinds


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.BatchNorm2d(4), "BatchNorm2d"),
        (nn.Dropout(0.5), "Dropout"),
        (nn.Dropout2d(0.5), "Dropout2d"),
    ],
)
def test_a_client_segment_that_is_no_deterministic_function_is_refused(toy, layer, kind):
    def network(_, num_labels):
        block = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 4, 3), odd=layer))
        rest = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_labels))
        return Network(OrderedDict(block=block, rest=rest), cut="block")

    name = toy(network)
    with pytest.raises(UserError, match=rf"{kind} \(block\.odd\)") as refused:
        check_fits(name, (1, 8, 8), 10)
    assert f"model={name!r}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_same_layers_behind_the_cut_are_allowed(toy):
    def network(_, num_labels):
        rest = nn.Sequential(
            nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)
        )
        return Network(
            OrderedDict(block=nn.Conv2d(1, 4, 3), rest=rest, out=nn.Linear(4, num_labels)),
            cut="block",
        )

    check_fits(toy(network), (1, 8, 8), 10)


@pytest.mark.parametrize(
    ("model", "shape"), [("vgg", (1, 8, 8)), ("vgg", (3, 15, 32)), ("cnn", (1, 3, 8))]
)
def test_an_image_too_small_is_refused_with_its_shape(model, shape):
    with pytest.raises(UserError) as refused:
        check_fits(model, shape, 10)
    message = str(refused.value)
    assert f"model={model!r}" in message
    assert str(shape) in message
    assert "\n" not in message


@pytest.mark.parametrize(("model", "shape"), [("vgg", (1, 16, 16)), ("cnn", (1, 4, 4))])
def test_the_smallest_image_that_is_promised_fits(model, shape):
    check_fits(model, shape, 10)


def test_a_wrong_number_of_logits_is_refused(toy):
    def network(shape, num_labels):
        one_too_many = nn.Linear(64, num_labels + 1)
        return Network(OrderedDict(flat=nn.Flatten(), out=one_too_many), cut="flat")

    with pytest.raises(UserError, match="10 finite logits") as refused:
        check_fits(toy(network), (1, 8, 8), 10)
    assert "model='toy_models:toy'" in str(refused.value)


def test_logits_that_are_not_finite_are_refused(toy):
    class Broken(nn.Linear):
        def forward(self, x):
            return super().forward(x) / 0

    def network(shape, num_labels):
        return Network(OrderedDict(flat=nn.Flatten(), out=Broken(64, num_labels)), cut="flat")

    with pytest.raises(UserError, match="finite logits"):
        check_fits(toy(network), (1, 8, 8), 10)


def test_vgg_and_cnn_take_every_number_of_channels_and_labels():
    for architecture, side in ((cnn, 8), (vgg, 16)):
        for channels, labels in ((1, 2), (3, 10), (4, 100)):
            whole = architecture((channels, side, side), labels).whole().eval()
            assert whole(torch.zeros(2, channels, side, side)).shape == (2, labels)


def test_group_norm_in_the_place_of_nothing_is_refused(without_batch_norm):
    model = without_batch_norm
    with pytest.raises(UserError, match=rf"client-norm='group' .*model='{model}' has no batch"):
        check_fits(CutModel(model, client_norm="group"), SHAPES[model], 7)


def test_an_architecture_takes_pretrained_weights_itself():
    asked = []

    def architecture(input_shape, num_labels, pretrained="", download=False):
        asked.append((pretrained, download))
        return vgg(input_shape, num_labels)

    model = CutModel("begun", pretrained="/weights", download=True)
    with patch.dict(MODELS._built_in, {"begun": architecture}):
        build_network(model, (3, 32, 32), 10)
        build_network("begun", (3, 32, 32), 10)
    assert asked == [("/weights", True), ("", False)]
