"""What a server segment is made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from split_unlearning.foundations.options import (
    Option,
    Settings,
    is_not_negative,
    one_of,
    setting,
)
from split_unlearning.models.inputs import Shape
from split_unlearning.models.network import Part
from split_unlearning.models.split import Model
from split_unlearning.models.training import TrainingSettings
from split_unlearning.strategies.server.gradient_noise import GradientNoise
from split_unlearning.strategies.server.precision import PRECISIONS, Precision


def _reserved(meaning: str) -> Option:
    def admits(value: float) -> bool:
        return is_not_negative(value) and (value <= 1 or value == int(value))

    return Option(0.0, "a number from 0 to 1, or a whole number", admits, meaning)


@dataclass(frozen=True)
class Resources(Settings):
    """How many CPUs and GPUs Ray reserves for a server segment; it shares one, but not several."""

    server_num_cpus: float = setting(_reserved("CPUs that Ray reserves for the server segment"))
    server_num_gpus: float = setting(_reserved("GPUs that Ray reserves for the server segment"))

    def __str__(self) -> str:
        return (
            f"server-num-cpus={self.server_num_cpus:g} and server-num-gpus={self.server_num_gpus:g}"
        )

    def fit(self, amounts: Mapping[str, float]) -> bool:
        """Say whether there is as much, in Ray's own words for CPUs and GPUs."""
        cpus, gpus = amounts.get("CPU", 0.0), amounts.get("GPU", 0.0)
        return cpus >= self.server_num_cpus and gpus >= self.server_num_gpus


@dataclass(frozen=True)
class SegmentSetting(Settings):
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
    precision: Precision = setting(
        one_of(
            "float32",
            PRECISIONS,
            "what the server segment's passes compute with; weights, loss and clients stay float32",
        )
    )
    host: str = "127.0.0.1"
    """The address that the link listens at."""
    on_gpu: bool = False
    """Whether to compute on the GPU that the process was given, if it was given one."""
