"""Where a network is cut: a network is a row of named layers, a segment a stretch of it."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.registry import Registry
from split_unlearning.models.drawing import seeded
from split_unlearning.models.inputs import Shape, blank, described, example

Part = Literal["client", "server", "trunk", "head"]
"""A stretch of a network: the `client` segment, and behind the cut the `server` segment; U-shaped
split learning cuts that once more, into the server's `trunk` and the client's `head`."""


@dataclass(frozen=True)
class Network:
    """A network that can be cut.

    Parameters
    ----------
    layers : OrderedDict of str to nn.Module
        The layers by name, in the order in which data passes them.
    cut : str
        Name of the last layer that a client holds: the cut layer.
    head : str
        Name of the first layer that a client holds again when the cut is U-shaped; by default the
        last.
    """

    layers: OrderedDict[str, nn.Module]
    cut: str
    head: str = ""

    def whole(self) -> nn.Sequential:
        """Return the network without a cut."""
        return self._stretch(list(self.layers))

    def segment(self, part: Part) -> nn.Sequential:
        """Return one stretch of the network; it shares the layers' parameters.

        Raises
        ------
        UserError
            If there is no layer of the cut's name, or nothing behind it; for the `trunk` and the
            `head`, if they would be empty.
        """
        names = list(self.layers)
        cut = self._position("cut", self.cut, names[:-1]) + 1
        if part == "client":
            return self._stretch(names[:cut])
        if part == "server":
            return self._stretch(names[cut:])
        head = self._position("head", self.head or names[-1], names[cut + 1 :]) + cut + 1
        return self._stretch(names[cut:head] if part == "trunk" else names[head:])

    def _position(self, key: str, name: str, allowed: Sequence[str]) -> int:
        if name not in allowed:
            possible = ", ".join(allowed) or "none, there are too few layers"
            raise UserError(f"{key}={name!r} is not possible; allowed: {possible}")
        return allowed.index(name)

    def _stretch(self, names: Sequence[str]) -> nn.Sequential:
        # The name of a layer may say where it lies; that of a module must not.
        return nn.Sequential(
            OrderedDict((name.replace(".", "-"), self.layers[name]) for name in names)
        )


Architecture = Callable[[Shape, int], Network]
"""Builds a network for an input shape and a number of labels."""

MODELS: Registry[Architecture] = Registry("model", group="split_unlearning.models")
MODELS.register("bert", "split_unlearning.models.bert:bert")
MODELS.register("cnn", "split_unlearning.models.cnn:cnn")
MODELS.register("resnet18", "split_unlearning.models.resnet:resnet18")
MODELS.register("vgg", "split_unlearning.models.vgg:vgg")

TORCHVISION = "torchvision:"
"""What comes before the name of any classification model of torchvision."""


@dataclass(frozen=True)
class CutModel:
    """A model by name, and where and how it is cut.

    Parameters
    ----------
    name : str
        In `MODELS`, or behind `TORCHVISION`.
    cut : str
        The last layer that a client holds; by default the model's own.
    client_norm : {"keep", "group"}
        Whether group norm takes the place of batch norm on the client's side of the cut.
    pretrained : str
        Weights to begin with, a folder or a name on the Hugging Face hub; for ``bert`` only.
    download : bool
        Whether the hub may be asked for them.
    """

    name: str
    cut: str = ""
    client_norm: str = "keep"
    pretrained: str = ""
    download: bool = False


Model = str | CutModel
"""A model, by its name alone or with how it is cut."""


def architecture(name: str) -> Architecture:
    """Return what builds a model.

    Raises
    ------
    UserError
        If there is no model of that name.
    """
    if name.startswith(TORCHVISION):
        from split_unlearning.models.torchvision_models import torchvision_model

        return torchvision_model(name.removeprefix(TORCHVISION))
    return MODELS.get(name)


def build_network(model: Model, input_shape: Shape, num_labels: int) -> Network:
    """Return a freshly initialised network, ready to be cut; parameters as in `build_segment`."""
    chosen = CutModel(model) if isinstance(model, str) else model
    if chosen.pretrained:
        if chosen.name != "bert":
            raise refuse("pretrained", chosen.pretrained, f"'' (model={chosen.name!r} has none)")
        from split_unlearning.models.bert import bert

        network = bert(input_shape, num_labels, chosen.pretrained, chosen.download)
    else:
        network = architecture(chosen.name)(input_shape, num_labels)
    if chosen.cut:
        network = replace(network, cut=chosen.cut)
    if chosen.client_norm == "keep":
        return network
    if not any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for layer in network.segment("client").modules()
    ):
        allowed = f"keep (model={chosen.name!r} has no batch norm up to cut={network.cut!r})"
        raise refuse("client-norm", chosen.client_norm, allowed)
    return with_group_norm(network)


def build_segment(
    part: Part, model: Model, input_shape: Shape, num_labels: int, seed: int
) -> nn.Sequential:
    """Return a freshly initialised segment.

    Parameters
    ----------
    part : Part
        Which stretch of the network.
    model : str or CutModel
        A name in `MODELS`, with or without how it is cut.
    input_shape : tuple of int
        Channels, height and width of an image, or tokens of a text.
    num_labels : int
        Number of labels of the task.
    seed : int
        The weights follow from it and from the architecture alone.
    """
    with seeded(seed):
        return build_network(model, input_shape, num_labels).segment(part)


def segment_with(
    part: Part,
    model: Model,
    input_shape: Shape,
    num_labels: int,
    weights: Mapping[str, torch.Tensor],
) -> nn.Sequential:
    """Return a segment with these weights; other parameters as in `build_segment`."""
    segment = copy.deepcopy(_template(part, model, input_shape, num_labels))
    segment.load_state_dict(dict(weights))
    return segment


# Drawing first weights for a whole network only to overwrite them costs more than a small turn.
@lru_cache(maxsize=8)
def _template(part: Part, model: Model, input_shape: Shape, num_labels: int) -> nn.Sequential:
    return build_segment(part, model, input_shape, num_labels, seed=0)


def smashed_shape(model: Model, input_shape: Shape, num_labels: int) -> tuple[int, ...]:
    """Return the shape of one image's smashed data, without the batch dimension."""
    segment = build_segment("client", model, input_shape, num_labels, seed=0)
    with torch.no_grad():
        return tuple(segment(blank(input_shape, 1)).shape[1:])


def pool_to_quarters(height: int, width: int) -> tuple[nn.AvgPool2d, int]:
    """Return average pooling to 2x2, or less where there is less, and the number of cells left.

    Adaptive pooling computes the same, but its backward pass is not deterministic on a GPU.
    """
    kernel = (height - height // 2, width - width // 2)
    pool = nn.AvgPool2d(kernel, stride=(max(1, height // 2), max(1, width // 2)))
    return pool, min(2, height) * min(2, width)


def with_group_norm(network: Network) -> Network:
    """Put group norm in the place of batch norm up to the cut: it keeps no statistics.

    A group is of two channels or more, there are at most 32 of them (Wu and He, "Group
    Normalization", 2018), and each divides the channels evenly. What is behind the cut stays.
    """
    names = list(network.layers)
    if network.cut not in names:
        return network
    layers = OrderedDict(network.layers)
    for name in names[: names.index(network.cut) + 1]:
        layers[name] = _group_norm(layers[name])
    return replace(network, layers=layers)


def _group_norm(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        groups = math.gcd(32, max(1, layer.num_features // 2))
        return nn.GroupNorm(groups, layer.num_features, layer.eps, layer.affine)
    for name, inner in layer.named_children():
        setattr(layer, name, _group_norm(inner))
    return layer


def check_fits(
    model: Model,
    input_shape: Shape,
    num_labels: int,
    server_part: Part = "server",
) -> None:
    """Refuse a model that cannot take images of this shape, or cannot be cut as it is to be cut.

    Parameters
    ----------
    model, input_shape, num_labels
        As in `build_segment`.
    server_part : Part
        What of the network the server is to hold.

    Raises
    ------
    UserError
        With the shape, if the images do not pass through; with the layer, if the client segment is
        not a deterministic function.
    """
    name = model if isinstance(model, str) else model.name
    try:
        with seeded(0), torch.no_grad():
            network = build_network(model, input_shape, num_labels)
            client, server = network.segment("client"), network.segment(server_part)
            # Of two images, in training mode: batch norm refuses too few values only then.
            logits = network.whole()(example(input_shape, 2))
    except UserError:
        raise
    except Exception as error:  # a stranger's layers may raise anything
        raise UserError(f"model={name!r} cannot take {described(input_shape)}: {error}") from error
    if tuple(logits.shape) != (2, num_labels) or not logits.isfinite().all():
        raise UserError(f"model={name!r} does not answer with {num_labels} finite logits an image")
    for side, segment in (("client", client), ("server", server)):
        if not any(True for _ in segment.parameters()):
            raise UserError(
                f"model={name!r} leaves the {side}'s side of the cut={network.cut!r} nothing to "
                "learn; allowed: a cut with parameters on both sides"
            )
    images = example(input_shape, 2)
    _check_deterministic(name, client, images)
    if server_part == "trunk":
        with torch.no_grad():
            features = server.eval()(client(images))
        _check_deterministic(name, network.segment("head"), features)


def _check_deterministic(name: str, segment: nn.Sequential, x: torch.Tensor) -> None:
    """Refuse what a client holds if it draws random numbers or keeps statistics."""
    culprits = [
        f"{type(layer).__name__} ({where})"
        for where, layer in segment.named_modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase)
        or (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0)
        or type(layer).__name__ == "StochasticDepth"
    ]
    with torch.no_grad():
        with seeded(1):
            first = segment(x)
        with seeded(2):
            again = segment(x)
    if culprits or not torch.equal(first, again):
        raise UserError(
            f"model={name!r} has {culprits[0] if culprits else 'a random layer'} on the client's "
            "side of the cut; a client segment must be a deterministic function (no dropout, no "
            "batch norm; client-norm='group' puts group norm in the place of batch norm)"
        )
