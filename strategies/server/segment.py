"""The server segment, as a strategy calls it, and in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

from split_unlearning.strategies.server.clock import Clock
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.server.part import Parts, ServerPart
from split_unlearning.strategies.server.scoring import Scoring
from split_unlearning.strategies.server.setting import SegmentSetting
from split_unlearning.strategies.server.shards import Shards

Kind = TypeVar("Kind", bound=ServerPart)
Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class ServerSegment(ABC):
    """All that the server holds of a model and keeps for it, in this process or in another."""

    @abstractmethod
    def call(
        self,
        method: Callable[Concatenate[Kind, Arguments], Returned],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Returned:
        """Call a method of the part that has it, where the segment runs, and wait.

        ``server.call(ServerModel.begin, stage)``. Arguments and what is returned may have to travel
        to another process.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop hosting the link, and delete what is not to be kept."""


class LocalSegment(ServerSegment):
    """A server segment in this process: `parts` are the built-in ones and a strategy's own.

    Raises
    ------
    UserError
        If the GPU cannot compute in the precision that is asked for.
    """

    def __init__(self, setting: SegmentSetting, own: Iterable[type[ServerPart]] = ()) -> None:
        setting.training.fix_kernels()
        # In this order: a part may look for those before it.
        kinds: tuple[type[ServerPart], ...] = (
            KeptState,
            Clock,
            ServerModel,
            Shards,
            Scoring,
            *own,
            ServerLink,
        )
        self.parts = Parts(setting, kinds)
        self.parts[KeptState].open()

    def call(
        self,
        method: Callable[Concatenate[Kind, Arguments], Returned],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Returned:
        """Call a method of the part that has it."""
        part: Any
        for part in self.parts:
            if getattr(type(part), method.__name__, None) is method:
                returned: Returned = method(part, *arguments, **named)
                return returned
        raise TypeError(
            f"no part of this server segment has {method.__qualname__}: a strategy names the "
            "classes of its own parts in server_parts"
        )

    def close(self) -> None:
        """Close every part, the link first."""
        for part in reversed(list(self.parts)):
            part.close()
