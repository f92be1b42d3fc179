"""Checks before a run: a model takes samples of a shape, and may be cut where the user asks."""

from __future__ import annotations

import torch
from torch import nn

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.inputs import Shape, described, example
from split_unlearning.models.network import Part
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import Model, build_network


def check_fits(
    model: Model,
    input_shape: Shape,
    num_labels: int,
    server_part: Part = "server",
) -> None:
    """Refuse a model that cannot take samples of this shape, or cannot be cut as asked.

    Raises
    ------
    UserError
        With the shape, if samples do not pass through; with the layer, if the client segment is not
        a deterministic function; or if a side of the cut has no parameters.
    """
    name = model if isinstance(model, str) else model.name
    try:
        with seeded(0), torch.no_grad():
            network = build_network(model, input_shape, num_labels)
            client, server = network.segment("client"), network.segment(server_part)
            # Two samples in training mode: only there does batch norm refuse too few values.
            images = example(input_shape, 2)
            logits = network.whole()(images)
    except UserError:
        raise
    except Exception as error:  # a stranger's layers may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"model={name!r} cannot take {described(input_shape)}: {reason}") from error
    if tuple(logits.shape) != (2, num_labels) or not logits.isfinite().all():
        raise UserError(f"model={name!r} does not answer with {num_labels} finite logits an image")
    for side, segment in (("client", client), ("server", server)):
        if not any(True for _ in segment.parameters()):
            raise UserError(
                f"model={name!r} leaves the {side}'s side of the cut={network.cut!r} nothing to "
                "learn; allowed: a cut with parameters on both sides"
            )
    _check_deterministic(name, client, images)
    if server_part == "trunk":
        with torch.no_grad():
            features = server.eval()(client(images))
        _check_deterministic(name, network.segment("head"), features)


def _check_deterministic(name: str, segment: nn.Sequential, x: torch.Tensor) -> None:
    """Refuse a segment of the client's that draws random numbers or keeps statistics."""
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
