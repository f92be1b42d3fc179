"""A SuperLink of one run's own: started on a free port, ended with all that it started."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.launching import processes
from split_unlearning.simulations.launching.processes import end_processes

CONNECTION = "run"
"""Name under which Flower's command line knows the SuperLink."""

_HOST = "127.0.0.1"
_START_SECONDS = 60.0
_END_SECONDS = 3.0
# Ray adds up to 75 characters to this path for its sockets, which end at 107 (103 on macOS).
_LONGEST_FOLDER = 28


@contextmanager
def superlink(folder: Path, environment: Mapping[str, str]) -> Iterator[bool]:
    """Keep a SuperLink that Flower's command line knows; yield whether it came up."""
    started = []
    guard = subprocess.Popen(
        [sys.executable, processes.__file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A Ctrl-C is for us alone.
        start_new_session=True,
    )
    try:
        # A second try, should another process have taken the port in between.
        for _ in range(2):
            port = _free_port()
            command = [program("flower-superlink"), "--insecure", "--simulation"]
            with (folder / "superlink.log").open("ab") as log:
                process = subprocess.Popen(
                    [*command, "--host", _HOST, "--port", str(port)],
                    env=environment,
                    # Ray's workers import from where the driver stands before they import from the
                    # app: a folder `models` of the user's must not be taken for ours.
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            started.append(process)
            if _comes_up(process, port):
                (folder / "config.toml").write_text(
                    f'[superlink.{CONNECTION}]\naddress = "{_HOST}:{port}"\ninsecure = true\n'
                )
                yield True
                return
        yield False
    finally:
        with _undisturbed():
            for process in started:
                process.terminate()
            end_processes(folder)
            for process in started:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_END_SECONDS)
                process.kill()
                process.wait()
            guard.kill()
            guard.communicate()


def short_folder() -> str:
    """Return a folder whose path leaves room for the names of Ray's sockets."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _LONGEST_FOLDER else "/tmp"


def environment_of(folder: Path) -> dict[str, str]:
    """Return the environment of everything that this run starts; it also marks them as its own."""
    environment = dict(os.environ)
    local = ",".join(filter(None, [environment.get("NO_PROXY"), _HOST, "localhost"]))
    environment |= {
        "FLWR_HOME": str(folder),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "NO_PROXY": local,
        "no_proxy": local,
        # The SuperLink finds Flower's other programs by name.
        "PATH": _search_path(),
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
        # Flower's clients need processes with an environment of their own: those that Ray starts
        # ahead, one for each CPU, would never be used.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if not environment.get("RAY_ADDRESS"):
        environment["RAY_TMPDIR"] = str(folder)
        # Ray listens on every address of the machine, and runs the code of whoever connects.
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        # Files that the server keeps for the run alone end with the folder, whatever happens.
        environment["TMPDIR"] = str(folder)
    return environment


def program(name: str) -> str:
    """Return the path of one of Flower's programs."""
    path = shutil.which(name, path=_search_path())
    if path is None:
        raise UserError(f"{name} is not installed beside {sys.executable}")
    return path


def _search_path() -> str:
    """Return where to look for programs: first beside this Python, activated or not."""
    beside = str(Path(sys.executable).parent)
    return os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])


def log_of(folder: Path) -> str:
    """Return what the SuperLink and all that it started printed."""
    path = folder / "superlink.log"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _free_port() -> int:
    """Return a free port that the system gives to no other process for the next minute."""
    with socket.create_server((_HOST, 0)) as server:
        port: int = server.getsockname()[1]
        # The end that closes first lingers; asking for any free port then passes this one over.
        with socket.create_connection((_HOST, port)):
            server.accept()[0].close()
    return port


def _comes_up(superlink: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a SuperLink answers."""
    deadline = time.monotonic() + _START_SECONDS
    while superlink.poll() is None and time.monotonic() < deadline:
        if _is_healthy(port):
            return True
        time.sleep(0.05)
    return False


def _is_healthy(port: int) -> bool:
    """Say whether a SuperLink answers on `port`."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C end the clean-up half-way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
