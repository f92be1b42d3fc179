"""The simplified VGG of the SplitWiper paper's evaluation."""

from collections import OrderedDict

from torch import nn

from split_unlearning.models.inputs import Shape, check_images
from split_unlearning.models.network import Network
from split_unlearning.models.pooling import pool_to_quarters


def vgg(input_shape: Shape, num_labels: int) -> Network:
    """Simplified VGG for 32x32 images; cut after the first convolution.

    Height and width are at least 16. The smashed data have 8 channels of half the height and width:
    2,048 numbers for a 32x32 image, which fits the paper's transmission times. Batch norm and
    dropout are on the server only (Sec. 4.2.1: "solely by the server, ensuring client model
    determinism").
    """
    check_images("vgg", input_shape)
    channels, height, width = input_shape
    pool, cells = pool_to_quarters(height // 16, width // 16)
    return Network(
        OrderedDict(
            conv1=first_convolution(channels),
            conv2=_convolutions(8, 64),
            conv3=_convolutions(64, 128),
            conv4=_convolutions(128, 256),
            hidden=nn.Sequential(
                pool, nn.Flatten(), nn.Linear(256 * cells, 256), nn.ReLU(), nn.Dropout(0.5)
            ),
            head=nn.Linear(256, num_labels),
        ),
        cut="conv1",
    )


def first_convolution(channels: int) -> nn.Sequential:
    """Return the client segment of the paper's networks."""
    return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Return one VGG block: two convolutions and its pooling."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
