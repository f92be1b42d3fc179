"""Where a model can be cut, and what each cut means for the wire and for either side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.inputs import Shape, described, example
from split_unlearning.models.network import Network, Part
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import Model, build_network

_SIDES: tuple[Part, Part] = ("client", "server")


@dataclass(frozen=True)
class Cut:
    """One cut: the smashed data of one sample, and the parameters on either side."""

    layer: str
    smashed_shape: tuple[int, ...]
    bytes_a_sample: int
    client_parameters: int
    server_parameters: int


def cuts(model: Model, input_shape: Shape, num_labels: int) -> list[Cut]:
    """Return every cut of a model that leaves parameters on both sides, from the input on.

    Raises
    ------
    UserError
        As `build_network`, and if samples of this shape do not pass through.
    """
    try:
        with seeded(0), torch.no_grad():
            return _cuts(build_network(model, input_shape, num_labels), example(input_shape, 2))
    except UserError:
        raise
    except Exception as error:  # a stranger's layers may raise anything
        name = model if isinstance(model, str) else model.name
        reason = " ".join(str(error).split())
        raise UserError(f"model={name!r} cannot take {described(input_shape)}: {reason}") from error


def _cuts(network: Network, x: torch.Tensor) -> list[Cut]:
    found = []
    for name, layer in list(network.layers.items())[:-1]:
        x = layer.eval()(x)
        at = replace(network, cut=name)
        # Layers that share parameters across the cut have them on both sides.
        held, served = (_parameters(at.segment(part)) for part in _SIDES)
        if held and served:
            shape, size = tuple(x.shape[1:]), x[0].numel() * x.element_size()
            found.append(Cut(name, shape, size, held, served))
    return found


def _parameters(segment: nn.Module) -> int:
    return sum(parameter.numel() for parameter in segment.parameters())
