"""Classification models of torchvision, as rows of layers that can be cut."""

from __future__ import annotations

import difflib

from torch import nn

from split_unlearning.foundations.errors import refuse
from split_unlearning.models.inputs import Shape, check_images
from split_unlearning.models.network import Architecture, Network
from split_unlearning.models.own_model import network_of


def torchvision_model(name: str) -> Architecture:
    """Return the architecture of a torchvision model, without pretrained weights.

    Its layers are those of `network_of`; there is no default cut.

    Raises
    ------
    UserError
        If torchvision has no such classification model; when the model is built, as `network_of`.
    """
    # The import takes seconds, and other models do not need it.
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["resnet18", "vgg11", "mobilenet_v2"]
        allowed = f"torchvision: and a classification model of torchvision, such as {near[0]}"
        raise refuse("model", f"torchvision:{name}", ", ".join([allowed, *near[1:]]))

    def architecture(input_shape: Shape, num_labels: int) -> Network:
        check_images(f"torchvision:{name}", input_shape)
        model = models.get_model(name, weights=None, num_classes=num_labels)
        _take_channels(model, input_shape[0])
        return network_of(model, f"torchvision:{name}")

    return architecture


def _take_channels(model: nn.Module, channels: int) -> None:
    """Give the first convolution as many input channels as the images have."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            if layer.in_channels != channels:
                first = nn.Conv2d(
                    channels,
                    layer.out_channels,
                    layer.kernel_size,  # type: ignore[arg-type]
                    layer.stride,  # type: ignore[arg-type]
                    layer.padding,  # type: ignore[arg-type]
                    bias=layer.bias is not None,
                )
                owner, _, own_name = name.rpartition(".")
                setattr(model.get_submodule(owner), own_name, first)
            return
