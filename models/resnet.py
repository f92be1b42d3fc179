"""ResNet18, as the SplitWiper paper's evaluation cuts it."""

from collections import OrderedDict

from torch import nn

from split_unlearning.models.inputs import Shape, check_images
from split_unlearning.models.network import Network
from split_unlearning.models.pooling import pool_to_quarters
from split_unlearning.models.vgg import first_convolution


def resnet18(input_shape: Shape, num_labels: int) -> Network:
    """Torchvision's ResNet18 for 32x32 images; cut after the first convolution.

    Height and width are at least 16. The client segment is that of `vgg`: the smashed data have 8
    channels of half the height and width (Sec. 6.1: "the number of parameters in the client model"
    is "consistent across both architectures"). On the server a convolution to 64 channels comes
    before torchvision's four layers of residual blocks.
    """
    # The import takes seconds, and other models do not need it.
    from torchvision.models import resnet18 as published

    check_images("resnet18", input_shape)
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
    """Return the height or width behind three convolutions of stride 2."""
    for _ in range(3):
        size = -(-size // 2)
    return size
