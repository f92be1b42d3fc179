"""ResNet18, as the SplitWiper paper's evaluation cuts it."""

from collections import OrderedDict

from torch import nn

from split_unlearning.models.inputs import Shape
from split_unlearning.models.split import Network, pool_to_quarters
from split_unlearning.models.vgg import first_convolution


def resnet18(input_shape: Shape, num_labels: int) -> Network:
    """Torchvision's ResNet18 for 32x32 images; cut after the first convolution.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width; height and width at least 16.
    num_labels : int
        Number of labels.

    Returns
    -------
    Network
        Clients hold what they hold of `vgg`: 8 channels of half the height and width cross the cut
        (Sec. 6.1: "the number of parameters in the client model" is "consistent across both
        architectures"). A convolution to 64 channels follows on the server, then torchvision's four
        layers of residual blocks as they are.
    """
    # It takes seconds to import, and other models do without.
    from torchvision.models import resnet18 as published

    channels, height, width = input_shape
    residual = published(weights=None, num_classes=num_labels)
    pool, cells = pool_to_quarters(_eighth(height // 2), _eighth(width // 2))
    return Network(
        OrderedDict(
            conv1=first_convolution(channels),
            conv2=nn.Sequential(
                nn.Conv2d(8, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
            ),
            layer1=residual.layer1,
            layer2=residual.layer2,
            layer3=residual.layer3,
            layer4=residual.layer4,
            pool=nn.Sequential(pool, nn.Flatten()),
            head=nn.Linear(512 * cells, num_labels),
        ),
        cut="conv1",
    )


def _eighth(size: int) -> int:
    """Return what three convolutions of stride 2 leave of a height or a width."""
    for _ in range(3):
        size = -(-size // 2)
    return size
