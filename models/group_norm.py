"""Group norm in the place of batch norm, on the client's side of the cut."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace

from torch import nn

from split_unlearning.models.network import Network


def has_batch_norm(segment: nn.Module) -> bool:
    """Return whether a segment has a layer of batch norm."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in segment.modules())


def with_group_norm(network: Network) -> Network:
    """Replace batch norm by group norm up to the cut, since group norm keeps no statistics.

    A group has at least two channels, there are at most 32 groups (Wu and He, "Group
    Normalization", 2018), and they divide the channels evenly.
    """
    layers = OrderedDict(network.layers)
    for name in network.client_layers():
        layers[name] = _group_norm(layers[name])
    return replace(network, layers=layers)


def _group_norm(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        groups = math.gcd(32, max(1, layer.num_features // 2))
        return nn.GroupNorm(groups, layer.num_features, layer.eps, layer.affine)
    for name, inner in layer.named_children():
        setattr(layer, name, _group_norm(inner))
    return layer
