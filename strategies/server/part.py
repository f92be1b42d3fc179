"""What a server segment is made of: parts, each with frames, calls and kept state of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import TypeVar

import torch

from split_unlearning.models.devices import device
from split_unlearning.strategies.server.setting import SegmentSetting
from split_unlearning.unlearning.state_folder import StateFolder
from split_unlearning.unlearning.tensor_store import TensorStore

Tensors = Mapping[str, torch.Tensor]
Answer = Callable[[int, dict[str, torch.Tensor], str], Tensors]
Method = TypeVar("Method", bound=Callable[..., Tensors])


def frame(method: Method) -> Method:
    """Mark a part's method as the one that answers frames of its name.

    The name is the method's, with dashes for underscores. A client sends such a frame with one
    field, ``link.exchange(tensors, {name: value})``; a frame without a field is a ``batch``. The
    method takes the client's id, the tensors and the value, and returns the tensors of the reply.
    A `ValueError` blames the client. Two frames of one client are never answered at a time; nor are
    those of two clients, unless each trains a copy of the segment (SplitFed).
    """
    method.is_frame = True  # type: ignore[attr-defined]
    return method


def check_holds(tensors: Tensors, *allowed: Set[str]) -> None:
    """Refuse a frame whose tensors are none of the allowed sets of names."""
    if not any(tensors.keys() == names for names in allowed):
        known = " or ".join(str(sorted(names)) for names in allowed)
        raise ValueError(f"a frame holds {known} here, not {sorted(tensors)}")


class ServerPart:
    """A part of the server segment.

    A strategy brings parts of its own by naming their classes in ``server_parts``. Each is made
    where the segment runs, in the strategy's process or in a Ray actor, and is found there by its
    class: ``self.parts[ServerModel]`` is the model. The strategy calls its methods with
    ``self.server.call(MyPart.method, ...)``, clients with frames.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.setting = parts.setting
        self.training = parts.setting.training

    def take_up(self, folder: StateFolder) -> None:
        """Go on from what a folder keeps, if it keeps anything, and keep everything there.

        Called before anything is asked, and again where another process has changed the folder.
        `kept` then holds tensors by name; parts share its names. With ``state-dir`` what a part
        writes counts once its request is committed, and is as before where that never comes.
        """
        self.folder, self.kept = folder, TensorStore(folder)

    def keep(self) -> None:
        """Write what is to outlive the run and is in memory alone; the state is sealed next."""

    @property
    def cache_bytes(self) -> int:
        """The size of what is cached of training, in bytes."""
        return 0

    def close(self) -> None:
        """Stop what runs, and delete what is not to be kept."""

    def frames(self) -> dict[str, Answer]:
        """Return the methods that are marked with `frame`, by the names of their frames."""
        marked = [
            name for name in dir(type(self)) if hasattr(getattr(type(self), name), "is_frame")
        ]
        return {name.replace("_", "-"): getattr(self, name) for name in marked}


Kind = TypeVar("Kind", bound=ServerPart)


class Parts:
    """The parts of one server segment, in one process, by their classes."""

    def __init__(self, setting: SegmentSetting, kinds: Iterable[type[ServerPart]]) -> None:
        self.setting = setting
        self.device = device(setting.on_gpu)
        self._parts: dict[type[ServerPart], ServerPart] = {}
        for kind in kinds:
            self._parts[kind] = kind(self)

    def __getitem__(self, kind: type[Kind]) -> Kind:
        """Return the part of a class; those named before it are there when a part is made."""
        part = self._parts[kind]
        assert isinstance(part, kind)
        return part

    def __iter__(self) -> Iterator[ServerPart]:
        return iter(self._parts.values())
