"""Runs on a state-dir in processes of their own, killed at a step or after a while.

A process that has done such a run, and has no other thread, forks one for each: that takes
milliseconds, where starting one takes seconds.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]


class Forks:
    """Runs jobs, one at a time, each in a fork of one process.

    A job is a function of `tests.state.bench` and its arguments.
    """

    def __init__(self):
        command = [sys.executable, "-m", "tests.state.forks"]
        # A GPU that was used cannot be used in a fork any more.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        self._server = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, function, *arguments, kill_at=0, kill_after=None, **named):
        """Run a job; return what became of it.

        Parameters
        ----------
        kill_at : int
            Before which step, from 1, it gets SIGKILL; at a write, in the middle of it.
        kill_after : float
            After how many seconds it gets SIGKILL, if it has not ended.

        Returns
        -------
        dict
            ``killed``, ``error`` (a text, empty if all was well), ``steps`` and ``seconds``.
        """
        job = {"function": function, "arguments": arguments, "named": named}
        job |= {"kill_at": kill_at, "kill_after": kill_after}
        self._server.stdin.write(json.dumps(job, default=str) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def done(self, function, *arguments, **named):
        """Run a job that is to succeed."""
        became = self.run(function, *arguments, **named)
        assert (became["killed"], became["error"]) == (False, "")
        return became

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()


class Steps:
    """Counts what changes a folder, and kills this process at one of the changes.

    To sync is no step, and is left out: SIGKILL takes nothing from what was written. A write is
    killed in its middle; what it was before is what it was after the step before.
    """

    def __init__(self, folder, fatal):
        self._inside = f"{folder}{os.sep}"
        self._fatal = fatal
        self.count = 0

    def _is_fatal(self, path):
        if not f"{path}{os.sep}".startswith(self._inside):
            # Of the server's temporary folder, for instance.
            return False
        self.count += 1
        return self.count == self._fatal

    def _before(self, change, changes=lambda *_: True):
        def counted(path, *arguments, **named):
            if changes(path, *arguments) and self._is_fatal(path):
                _kill_me()
            return change(path, *arguments, **named)

        return counted

    def patches(self):
        """Patch all with which the product changes a disk."""
        from split_unlearning.foundations.files import open_for_owner

        write = os.write

        def open_counted(path):
            return _Written(open_for_owner(path), lambda: self._is_fatal(path))

        def write_counted(file, data):
            if self._is_fatal(os.readlink(f"/proc/self/fd/{file}")):
                write(file, data[: len(data) // 2])
                _kill_me()
            return write(file, data)

        def creates(path, flags, *_):
            return bool(flags & os.O_CREAT) and not os.path.exists(path)

        yield patch.object(os, "fsync", lambda _: None)
        yield patch("split_unlearning.foundations.files.open_for_owner", open_counted)
        yield patch.object(os, "write", write_counted)
        yield patch.object(os, "open", self._before(os.open, creates))
        for name in ("replace", "unlink", "mkdir"):
            yield patch.object(os, name, self._before(getattr(os, name)))


class _Written:
    """A file whose writes are steps."""

    def __init__(self, file, is_fatal):
        self._file, self._is_fatal = file, is_fatal

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        if self._is_fatal():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            _kill_me()
        self._file.write(data)

    def flush(self):
        self._file.flush()

    def fileno(self):
        return self._file.fileno()


def _kill_me():
    os.kill(os.getpid(), signal.SIGKILL)
    # It comes at once, but perhaps to another thread.
    time.sleep(60)


def _do(job):
    """In the fork: do the job; return what became of it."""
    from tests.state import bench

    path = job["arguments"][0]
    steps = Steps(path, job["kill_at"])
    # All that the server segment keeps for the run alone: a killed run leaves it.
    tempfile.tempdir = str(Path(path).parent)
    try:
        with ExitStack() as stack:
            for one in steps.patches():
                stack.enter_context(one)
            getattr(bench, job["function"])(*job["arguments"], **job["named"])
    except Exception as error:  # noqa: BLE001 - whoever asked is told
        return {"error": f"{type(error).__name__}: {error}", "steps": steps.count}
    return {"error": "", "steps": steps.count}


def _fork(job):
    """Do a job in a fork, and kill it after a while if it is asked for."""
    told, tell = os.pipe()
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(told)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        with os.fdopen(tell, "w") as pipe:
            pipe.write(json.dumps(_do(job)))
        os._exit(0)
    os.close(tell)
    if job["kill_after"] is not None:
        time.sleep(job["kill_after"])
        os.kill(child, signal.SIGKILL)
    with os.fdopen(told) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    became = json.loads(text) if text else {"error": "", "steps": 0}
    return {**became, "killed": not text, "seconds": seconds}


def main():
    """Do the jobs that come in, line by line."""
    from tests.state import bench

    # Done once, before any fork, what a process does the first time that it learns.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        settings = {**bench.SLICED, "dataset": bench.few_digits(Path(folder) / "digits.npz")}
        bench.learn(Path(folder) / "state", settings)
    for line in sys.stdin:
        answer = _fork(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
