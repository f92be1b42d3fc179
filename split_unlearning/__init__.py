"""Run, compare and trust forgetting in split learning, on Flower and Ray.

What a plug-in needs is here by name (`split_unlearning.plugin` lists it). It is imported when it is
first asked for, so that a room that knows neither PyTorch nor Flower is imported without them.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from split_unlearning.plugin import *  # noqa: F403

# A Flower bundle holds no links, and Windows may not follow them: the rooms then lie beside this
# folder, not in it.
_HERE = Path(__file__).parent
if not (_HERE / "strategies").is_dir():
    __path__.append(str(_HERE.parent))  # noqa: F405


def __getattr__(name: str) -> Any:
    plugin = import_module("split_unlearning.plugin")
    if name in plugin.__all__:
        return getattr(plugin, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *import_module("split_unlearning.plugin").__all__]
