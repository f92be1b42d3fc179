"""Where the server segment runs: in this process, or as a Ray actor with resources of its own."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Concatenate

import ray
from ray.exceptions import RayActorError, RayTaskError

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.models.memory import keep_freed_memory
from split_unlearning.strategies.server.part import ServerPart
from split_unlearning.strategies.server.segment import (
    Arguments,
    Kind,
    LocalSegment,
    Returned,
    ServerSegment,
)
from split_unlearning.strategies.server.setting import Resources, SegmentSetting

# Starting a process and importing torch takes seconds; beyond this nothing is coming.
_START_SECONDS = 60.0

_ANSWER_SECONDS = 10.0


class _Host:
    """An actor that has a server segment, and may be given another when that has ended."""

    _segment: LocalSegment

    def begin(self, setting: SegmentSetting, own: Sequence[type[ServerPart]]) -> None:
        """Make a server segment, whose link is bound to the address of the node Ray chose."""
        keep_freed_memory()
        self._segment = LocalSegment(replace(setting, host=link_host()), own)

    def call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a method of the part that has it."""
        return self._segment.call(method, *arguments, **named)

    def close(self) -> None:
        """Close the segment."""
        self._segment.close()


class HostedSegment(ServerSegment):
    """A server segment in a Ray actor, of `_Host`: every call goes there and waits."""

    def __init__(self, actor: Any, reserved: Resources) -> None:
        self.actor, self.reserved = actor, reserved

    def call(
        self,
        method: Callable[Concatenate[Kind, Arguments], Returned],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Returned:
        """Call a method of the part that has it, in the actor.

        Raises
        ------
        ServerLostError
            If the actor is gone.
        """
        returned: Returned = _answer(self.actor.call.remote(method, *arguments, **named))
        return returned

    def close(self) -> None:
        """Close the segment; its actor is there still."""
        _answer(self.actor.close.remote())


class ServerLostError(UserError):
    """The server segment's process, or the node that it was on, is gone."""


def _answer(asked: Any) -> Any:
    """Wait for what an actor answers."""
    try:
        return ray.get(asked)
    except RayActorError as error:
        reason = " ".join(str(error).split())
        raise ServerLostError(
            f"the server segment is lost: its process or the node that it ran on ended ({reason})"
        ) from error
    except RayTaskError as error:
        # What the segment raised, not Ray's picture of the stack that it was raised in.
        raise error.cause from None


_spare: dict[Resources, Any] = {}
"""Actors that wait to become another server segment, by what they hold."""


_here: list[None] = []


@contextmanager
def in_this_process() -> Iterator[None]:
    """Make server segments in this process, also where its user has started Ray."""
    _here.append(None)
    try:
        yield
    finally:
        _here.pop()


def place(
    resources: Resources,
    setting: SegmentSetting,
    own: Sequence[type[ServerPart]] = (),
) -> ServerSegment:
    """Make a server segment where it is to run: in this process if there is no Ray.

    Call it once Flower's client pool stands, that is, after the first answers: what it then can
    have is what the pool left. `own` are the parts that the strategy brings.

    Raises
    ------
    UserError
        If Ray cannot give it what it asks for beside the client pool; it is never waited for.
    """
    if _here or not ray.is_initialized():
        if resources != Resources():
            raise UserError(f"{resources} are reserved by Ray, and this run has none; allowed: 0")
        return LocalSegment(setting, own)
    actor = _spare.pop(resources, None)
    if actor is None:
        _end_spare()
        _check_room(resources)
        cpus, gpus = resources.server_num_cpus, resources.server_num_gpus
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Host).remote()
    begun = actor.begin.remote(replace(setting, on_gpu=resources.server_num_gpus > 0), own)
    ready, _ = ray.wait([begun], timeout=_START_SECONDS)
    if not ready:
        ray.kill(actor)
        raise UserError(
            f"the server segment did not start within {_START_SECONDS:.0f} seconds: either the "
            f"machine is too busy, or {resources} are free on different nodes, or parts of "
            "different GPUs, only"
        )
    _answer(begun)
    return HostedSegment(actor, resources)


def release(server: ServerSegment, more: bool = False) -> None:
    """End a server segment: close what it has open and give its resources back.

    If there will be `more` like it, its process, and what that holds, wait for the next, because to
    start one takes as long as many a run.
    """
    try:
        # What is gone has nothing open, and why it is gone has been said.
        with suppress(ServerLostError):
            server.close()
    finally:
        if isinstance(server, HostedSegment):
            if more:
                _spare[server.reserved] = server.actor
            else:
                ray.kill(server.actor)


def _end_spare() -> None:
    for actor in _spare.values():
        ray.kill(actor)
    _spare.clear()


def nodes_at(address: str) -> list[tuple[float, float]]:
    """Return the CPUs and GPUs of each node of a Ray cluster that is alive.

    Raises
    ------
    UserError
        If there is no cluster at that address, as of ``ray.init``.
    """
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdecimal() and "/" not in host:
            # Ray itself tries for two minutes.
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        with warnings.catch_warnings():
            # Ray announces how it will treat accelerators some day.
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise refuse("RAY_ADDRESS", address, f"where a Ray cluster answers ({reason})") from error
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
    return [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]


def link_host() -> str:
    """Return the address of this Ray node to bind a link to: loopback if all is on one machine."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return "127.0.0.1" if len(machines) == 1 else str(ray.util.get_node_ip_address())


def _check_room(wanted: Resources) -> None:
    """Refuse at once what no node has, and what the client pool has left nothing for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(map(wanted.fit, nodes)):
        raise UserError(
            f"{wanted} are more than any node of this cluster has; it has "
            f"{_resources(ray.cluster_resources())} in all"
        )
    free = ray.available_resources()
    if not wanted.fit(free):
        raise UserError(
            f"{wanted} do not fit beside the clients; of {_resources(ray.cluster_resources())} in "
            f"the cluster, {_resources(free)} are free. Flower gives its clients every CPU and GPU "
            "they can use: ask for less, let clients take more each, or add a node that clients "
            "cannot use (ray start --num-cpus=0)"
        )


def _resources(amounts: dict[str, float]) -> str:
    return f"{amounts.get('CPU', 0.0):g} CPUs and {amounts.get('GPU', 0.0):g} GPUs"
