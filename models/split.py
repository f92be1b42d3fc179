"""Models by name, and the segments that they are cut into."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.once import once
from split_unlearning.foundations.options import Settings, Value, name_of, one_of, setting, text_of
from split_unlearning.foundations.registry import Registry, load_object
from split_unlearning.models.group_norm import has_batch_norm, with_group_norm
from split_unlearning.models.inputs import Shape, blank
from split_unlearning.models.network import Architecture, Network, Part
from split_unlearning.models.own_model import own_architecture
from split_unlearning.models.seeding import seeded

MODELS: Registry[Architecture] = Registry("model", group="split_unlearning.models")
MODELS.register("bert", "split_unlearning.models.bert:bert")
MODELS.register("cnn", "split_unlearning.models.cnn:cnn")
MODELS.register("resnet18", "split_unlearning.models.resnet:resnet18")
MODELS.register("vgg", "split_unlearning.models.vgg:vgg")

TORCHVISION = "torchvision:"
"""Begins the name of a classification model of torchvision."""

_TORCHVISION_PATH = "split_unlearning.models.torchvision_models:torchvision_model"


@dataclass(frozen=True)
class CutModel(Settings):
    """A model by name, and where and how it is cut.

    The name is one in `MODELS`, one of torchvision behind `TORCHVISION`, or the dotted path of a
    module or of what makes one (`own_architecture`). `pretrained` are weights to begin with, a
    folder or a name on the Hugging Face hub; with `download` the hub may be asked for them.
    """

    name: str = setting(name_of("cnn", "the network that is cut"), "model")
    cut: str = setting(
        text_of(
            "",
            "a layer of the model, or empty for its own cut",
            "the last layer that a client holds",
        )
    )
    client_norm: str = setting(
        one_of(
            "keep",
            ("keep", "group"),
            "group norm in the place of batch norm, on the client's side of the cut",
        )
    )
    pretrained: str = ""
    download: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Value], /, **others: Any) -> Self:
        """Return what settings ask for; only for pretrained weights is anything fetched."""
        pretrained = options["pretrained"]
        download = bool(pretrained) and options["download"]
        return super().of(options, pretrained=pretrained, download=download, **others)


Model = str | CutModel
"""A model by name alone, or with how it is cut."""


def architecture(name: str) -> Architecture:
    """Return the function that builds a model.

    Raises
    ------
    UserError
        If there is no model of that name.
    """
    if name.startswith(TORCHVISION):
        named: Callable[[str], Architecture] = load_object("model", _TORCHVISION_PATH)
        return named(name.removeprefix(TORCHVISION))
    if name in MODELS.built_in():
        return MODELS.get(name)
    return own_architecture(name, MODELS.get(name))


def build_network(model: Model, input_shape: Shape, num_labels: int) -> Network:
    """Return a freshly initialised network, ready to be cut.

    Raises
    ------
    UserError
        If the model has no pretrained weights or no batch norm where the user asks for them.
    """
    chosen = CutModel(model) if isinstance(model, str) else model
    build, weights = architecture(chosen.name), {}
    if chosen.pretrained:
        if "pretrained" not in inspect.signature(build).parameters:
            raise refuse("pretrained", chosen.pretrained, f"'' (model={chosen.name!r} has none)")
        weights = {"pretrained": chosen.pretrained, "download": chosen.download}
    network = build(input_shape, num_labels, **weights)
    if chosen.cut:
        network = replace(network, cut=chosen.cut)
    if chosen.client_norm == "keep":
        return network
    if not has_batch_norm(network.segment("client")):
        allowed = f"keep (model={chosen.name!r} has no batch norm up to cut={network.cut!r})"
        raise refuse("client-norm", chosen.client_norm, allowed)
    return with_group_norm(network)


def build_segment(
    part: Part, model: Model, input_shape: Shape, num_labels: int, seed: int
) -> nn.Sequential:
    """Return a freshly initialised segment.

    Its weights follow from the seed and the architecture alone.
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
    """Return a segment with these weights."""
    segment = copy.deepcopy(_template(part, model, input_shape, num_labels))
    segment.load_state_dict(dict(weights))
    return segment


# Drawing weights for a whole network only to overwrite them takes longer than a small turn.
@once(maxsize=8)
def _template(part: Part, model: Model, input_shape: Shape, num_labels: int) -> nn.Sequential:
    return build_segment(part, model, input_shape, num_labels, seed=0)


def smashed_shape(model: Model, input_shape: Shape, num_labels: int) -> tuple[int, ...]:
    """Return the shape of the smashed data of one sample, without the batch dimension."""
    segment = build_segment("client", model, input_shape, num_labels, seed=0)
    with torch.no_grad():
        return tuple(segment(blank(input_shape, 1)).shape[1:])
