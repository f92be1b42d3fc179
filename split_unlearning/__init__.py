"""Run, compare and trust forgetting in split learning, on Flower and Ray.

    import split_unlearning as su
    run = su.run(strategy="splitwiper", dataset="digits", forget="class:3", clients=4)

What a script or a notebook needs is here by name, and so is what a plug-in needs
(`split_unlearning.plugin` lists it). Each is imported when it is first asked for, so that a room
that knows neither PyTorch nor Flower is imported without them.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from split_unlearning.foundations.errors import RunFailedError as RunFailedError
    from split_unlearning.foundations.errors import StateError as StateError
    from split_unlearning.plugin import *  # noqa: F403
    from split_unlearning.simulations.python.benchmarking import Benchmark as Benchmark
    from split_unlearning.simulations.python.benchmarking import benchmark as benchmark
    from split_unlearning.simulations.python.benchmarking import read_results as read_results
    from split_unlearning.simulations.python.handle import Run as Run
    from split_unlearning.simulations.python.handle import load as load
    from split_unlearning.simulations.python.later import Certificate as Certificate
    from split_unlearning.simulations.python.later import unlearn as unlearn
    from split_unlearning.simulations.python.later import verify as verify
    from split_unlearning.simulations.python.later import withdraw as withdraw
    from split_unlearning.simulations.python.running import run as run

# A Flower bundle holds no links, and Windows may not follow them: the rooms then lie beside this
# folder, not in it.
_HERE = Path(__file__).parent
if not (_HERE / "strategies").is_dir():
    __path__.append(str(_HERE.parent))  # noqa: F405


# Where the door from Python is.
_DOOR = {
    "Benchmark": "simulations.python.benchmarking",
    "Certificate": "simulations.python.later",
    "Run": "simulations.python.handle",
    "RunFailedError": "foundations.errors",
    "StateError": "foundations.errors",
    "benchmark": "simulations.python.benchmarking",
    "load": "simulations.python.handle",
    "read_results": "simulations.python.benchmarking",
    "run": "simulations.python.running",
    "unlearn": "simulations.python.later",
    "verify": "simulations.python.later",
    "withdraw": "simulations.python.later",
}


def __getattr__(name: str) -> Any:
    if name in _DOOR:
        return getattr(import_module(f"split_unlearning.{_DOOR[name]}"), name)
    plugin = import_module("split_unlearning.plugin")
    if name in plugin.__all__:
        return getattr(plugin, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_DOOR, *import_module("split_unlearning.plugin").__all__]
