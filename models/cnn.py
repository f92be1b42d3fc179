"""A small convolutional network for digits."""

from collections import OrderedDict

from torch import nn

from split_unlearning.models.inputs import Shape, check_images
from split_unlearning.models.network import Network
from split_unlearning.models.pooling import pool_to_quarters


def cnn(input_shape: Shape, num_labels: int) -> Network:
    """Three convolutions for small grey images such as digits; cut after the first.

    Height and width are at least 4. The smashed data have 8 channels of half the height and width:
    128 numbers for an 8x8 image.
    """
    check_images("cnn", input_shape)
    channels, height, width = input_shape
    pool, cells = pool_to_quarters(height // 4, width // 4)
    return Network(
        OrderedDict(
            block1=nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            block2=nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.ReLU()),
            block3=nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            pool=nn.Sequential(pool, nn.Flatten()),
            head=nn.Linear(32 * cells, num_labels),
        ),
        cut="block1",
    )
