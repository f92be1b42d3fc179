"""What a server segment is made for."""

from __future__ import annotations

from dataclasses import dataclass

from split_unlearning.models.inputs import Shape
from split_unlearning.models.network import Part
from split_unlearning.models.split import Model
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.gradient_noise import GradientNoise
from split_unlearning.strategies.server.precision import Precision


@dataclass(frozen=True)
class SegmentSetting:
    """What the parts of a server segment work with; it travels to the process that they run in."""

    model: Model
    input_shape: Shape
    """Channels, height and width of a client's images, or the length of its texts."""
    num_labels: int
    training: TrainingSettings
    part: Part = "server"
    """What of the network the server holds: all behind the cut, or the trunk of a U shape."""
    gradient_noise: GradientNoise | None = None
    """What is added to the gradients at the cut that clients are sent."""
    precision: Precision = "float32"
    host: str = "127.0.0.1"
    """The address that the link listens at."""
    on_gpu: bool = False
    """Whether to compute on the GPU that the process was given, if it was given one."""
