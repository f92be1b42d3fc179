"""Ending all that a run has started, also when the command that started it was killed.

Run as a script, with the run's folder as its argument, it waits until the process that started it
has ended, by whatever means, and then ends all that this has left. It imports nothing of ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_END_SECONDS = 3.0


def end_processes(folder: Path) -> None:
    """End everything that this run started, Ray's processes included."""
    asked: set[int] = set()
    members: dict[int, str] = {}
    start = time.monotonic()
    while members := _members(folder, members):
        waited = time.monotonic() - start
        if waited > 2 * _END_SECONDS:
            return
        for pid in members:
            with suppress(ProcessLookupError):
                if waited > _END_SECONDS:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in asked:
                    asked.add(pid)
                    os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)


def _members(folder: Path, known: Mapping[int, str]) -> dict[int, str]:
    """Return the live processes of this run, and when each started.

    They are those with its mark, those ``known`` from an earlier look, and the descendants of
    both. Flower and Ray put processes into sessions of their own, so that no process group holds
    all; but all inherit the environment. Some of Ray's overwrite theirs with their title, and
    outlive their parent by a moment: hence those that are known. Where there is no ``/proc`` this
    is empty; there Flower's and Ray's processes end when their parent has.
    """
    mark = f"FLWR_HOME={folder}".encode()
    parents: dict[int, int] = {}
    starts: dict[int, str] = {}
    members: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # proc(5): after the name come the state, the parent, ... and in place 20 the start.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            environment = (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if fields[0] != "Z":
            pid = int(entry.name)
            parents[pid], starts[pid] = int(fields[1]), fields[19]
            # A number may have been given to another process since.
            if mark in environment.split(b"\0") or known.get(pid) == starts[pid]:
                members.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return {pid: starts[pid] for pid in members}


def _guard(folder: Path) -> None:
    """Wait for the other end of standard input to close, which is when its process ends."""
    sys.stdin.buffer.read()
    end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
