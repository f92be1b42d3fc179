"""A model of the user's own: any PyTorch module, cut behind a layer that the user names."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from split_unlearning.foundations.errors import refuse
from split_unlearning.models.inputs import Shape
from split_unlearning.models.network import Architecture, Network
from split_unlearning.models.tracing import layers_of

_LABELS = ("num_labels", "num_classes")


def own_architecture(name: str, named: Any) -> Architecture:
    """Return the architecture that an object of the user's stands for.

    It is one of these:

    - a function that returns a `Network` or a module, from the shape of a sample and the number of
      labels, or from what its parameters ask for by name;
    - a subclass of `torch.nn.Module`, made with what its parameters ask for by name;
    - a module, which is copied with the weights that it has: they do not follow from the seed.

    The names are ``input_shape``, and ``num_labels`` or ``num_classes``.

    Raises
    ------
    UserError
        If it is none of these.
    """
    if isinstance(named, nn.Module):
        return lambda input_shape, num_labels: network_of(copy.deepcopy(named), name)
    try:
        asked = inspect.signature(named).parameters
    except (TypeError, ValueError) as error:
        # A TypeError of what cannot be called, a ValueError of what C made.
        allowed = "a torch.nn.Module, a class of one, or a function that makes one"
        raise refuse("model", name, allowed) from error
    if "pretrained" in asked and not inspect.isclass(named):
        architecture: Architecture = named
        return architecture

    def build(input_shape: Shape, num_labels: int) -> Network:
        made = _made(named, name, input_shape, num_labels)
        return made if isinstance(made, Network) else network_of(made, name)

    return build


def _made(named: Callable[..., Any], name: str, input_shape: Shape, num_labels: int) -> Any:
    known = {"input_shape": input_shape, **dict.fromkeys(_LABELS, num_labels)}
    parameters = inspect.signature(named).parameters.values()
    needed = [
        one.name for one in parameters if one.default is one.empty and one.kind < one.VAR_POSITIONAL
    ]
    asked = {one.name: known[one.name] for one in parameters if one.name in known}
    if not inspect.isclass(named) and len(needed) == 2 and not asked.keys() >= {*needed}:
        # The form of the built-in architectures, whatever their parameters are called.
        return named(input_shape, num_labels)
    if unknown := [one for one in needed if one not in known]:
        allowed = f"parameters named {', '.join(known)}, or with a default, not {unknown[0]!r}"
        raise refuse("model", name, allowed)
    return named(**asked)


def network_of(model: object, name: str) -> Network:
    """Return a module as a row of layers; there is no default cut.

    Raises
    ------
    UserError
        If it is no module or has lazy layers, or torch.fx cannot take it apart.
    """
    if not isinstance(model, nn.Module):
        raise refuse("model", name, f"what makes a torch.nn.Module, not {type(model).__name__}")
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        raise refuse("model", name, "a model whose layers say how many inputs they have (no Lazy)")
    try:
        return Network(layers_of(model), cut="")
    except Exception as error:  # a forward pass may be anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        allowed = f"a model that torch.fx can take apart ({reason})"
        raise refuse("model", name, allowed) from error
