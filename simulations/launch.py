"""Submit the Flower app to a SuperLink of its own, wait for it, and leave nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import simulations
from models.errors import UserError
from simulations.console import FAILURE

Value = bool | int | float | str

ROOMS = ("clients", "models", "simulations", "strategies", "transport", "unlearning")

_HOST = "127.0.0.1"
_CONNECTION = "run"
_COMPLETED = "finished:completed"
_START_SECONDS = 60.0
_END_SECONDS = 3.0
# Ray adds up to 75 characters to this path for its sockets, which end at 107 (103 on macOS).
_LONGEST_FOLDER = 28


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    succeeded : bool
        Whether Flower calls the run completed.
    error : str
        Why it did not, in one line; empty otherwise.
    log : str
        Everything that Flower, Ray and the app printed.
    """

    succeeded: bool
    error: str
    log: str


def stage_app(folder: Path) -> Path:
    """Assemble the Flower app from this checkout or from the installed package.

    Parameters
    ----------
    folder : Path
        Where to; the app becomes a folder in it.

    Returns
    -------
    Path
        What ``flwr run`` takes.
    """
    package = Path(simulations.__file__).parent
    app = folder / "app"
    for room in ROOMS:
        (app / room).mkdir(parents=True)
        for source in (package.parent / room).glob("*.py"):
            shutil.copyfile(source, app / room / source.name)
    shutil.copyfile(package.parent / "split_unlearning.py", app / "split_unlearning.py")
    # The wheel carries its pyproject.toml in here, a checkout has it at its root.
    packaged = package / "pyproject.toml"
    description = packaged if packaged.exists() else package.parent / "pyproject.toml"
    shutil.copyfile(description, app / "pyproject.toml")
    return app


def as_toml(settings: Mapping[str, Value]) -> str:
    """Write run-config overrides as a TOML file, where no quoting can break.

    Parameters
    ----------
    settings : Mapping
        Run-config keys and values.
    """
    return "".join(
        f"{_quoted(key)} = {_quoted(value) if isinstance(value, str) else repr(value).lower()}\n"
        for key, value in settings.items()
    )


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for the one control character that JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def run_app(
    settings: Mapping[str, Value],
    clients: int,
    *,
    client_cpus: int = 1,
    client_gpus: float = 0,
    on_line: Callable[[str], None],
    app: Path | None = None,
) -> Outcome:
    """Run a Flower app in a simulation and wait for it.

    The SuperLink that the app runs on belongs to this call alone, so that neither an old one nor
    another run's is met; whatever it started has ended when this returns or raises.

    Parameters
    ----------
    settings : Mapping
        Run-config keys that differ from the app's defaults.
    clients : int
        Number of simulated clients.
    client_cpus : int
        What Ray reserves for each client that works; Flower knows no fractions of a CPU.
    client_gpus : float
        The same, of GPUs, which can be shared.
    on_line : callable
        Is given every line that the run prints, while it prints it.
    app : Path, optional
        Folder of a Flower app; this project's own by default.
    """
    with tempfile.TemporaryDirectory(
        prefix="split-", dir=_short_folder(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        (folder / "overrides.toml").write_text(as_toml(settings), encoding="utf-8")
        environment = _environment(folder)
        federation = (
            f"num-supernodes={clients} client-resources-num-cpus={client_cpus} "
            f"client-resources-num-gpus={client_gpus}"
        )
        command = [_program("flwr"), "run", str(app or stage_app(folder)), _CONNECTION]
        command += ["--stream", "--run-config", str(folder / "overrides.toml")]
        command += ["--federation-config", federation]
        with _superlink(folder, environment) as is_up:
            if not is_up:
                log = _log(folder)
                last = _plain((log.strip().splitlines() or ["it printed nothing"])[-1])
                return Outcome(False, f"Flower's SuperLink does not start: {last}", log)
            lines, code = _stream(command, environment, on_line)
            status = _status(lines, environment) if code == 0 else ""
        log = "".join(lines) + _log(folder)
        # Flower calls a run completed, too, whose ServerApp ended itself with sys.exit(1).
        if status == _COMPLETED and FAILURE not in log:
            return Outcome(True, "", log)
        return Outcome(False, _error(lines, status), log)


def _short_folder() -> str:
    """Return a folder whose path leaves room for the names of Ray's sockets."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _LONGEST_FOLDER else "/tmp"


def _environment(folder: Path) -> dict[str, str]:
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
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if not environment.get("RAY_ADDRESS"):
        environment["RAY_TMPDIR"] = str(folder)
    return environment


def _search_path() -> str:
    """Return where to look for programs: first beside this Python, activated or not."""
    beside = str(Path(sys.executable).parent)
    return os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])


def _program(name: str) -> str:
    """Return the path of one of Flower's programs."""
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise UserError(f"{name} is not installed beside {sys.executable}")
    return found


def _free_port() -> int:
    """Return a port that a server may listen on, but that nobody is handed for the next minute."""
    with socket.create_server((_HOST, 0)) as server:
        port: int = server.getsockname()[1]
        # The end that closes first lingers; asking for any free port then passes this one over.
        with socket.create_connection((_HOST, port)):
            server.accept()[0].close()
    return port


@contextmanager
def _superlink(folder: Path, environment: Mapping[str, str]) -> Iterator[bool]:
    """Keep a SuperLink that Flower's command line knows; yield whether it came up."""
    started = []
    try:
        # Once more, should somebody have taken the port in between.
        for _ in range(2):
            port = _free_port()
            command = [_program("flower-superlink"), "--insecure", "--simulation"]
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
                    f'[superlink.{_CONNECTION}]\naddress = "{_HOST}:{port}"\ninsecure = true\n'
                )
                yield True
                return
        yield False
    finally:
        with _undisturbed():
            for process in started:
                process.terminate()
            _end_processes(folder)
            for process in started:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_END_SECONDS)
                process.kill()
                process.wait()


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


def _stream(
    command: list[str], environment: Mapping[str, str], on_line: Callable[[str], None]
) -> tuple[list[str], int]:
    """Run a command to its end; return what it printed and its exit code."""
    lines = []
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                on_line(line.rstrip("\n"))
        except BaseException:
            # Leaving the block waits for the process.
            process.kill()
            raise
    return lines, process.returncode


def _status(lines: list[str], environment: Mapping[str, str]) -> str:
    """Ask for a run's status: ``flwr run --stream`` exits with 0 after a failed run, too."""
    started = re.search(r"Successfully started run (\d+)", "".join(lines))
    if started is None:
        return "not started"
    command = [_program("flwr"), "list", _CONNECTION, "--run-id", started[1], "--format", "json"]
    answer = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    try:
        return str(json.loads(answer.stdout)["runs"][0]["status"])
    except (ValueError, LookupError):
        return " ".join(f"unknown {answer.stdout} {answer.stderr}".split())


def _error(printed: list[str], status: str) -> str:
    """Find the one line that says best why a run failed."""
    lines = [_plain(line) for line in printed]
    told = [line.partition(FAILURE)[2] for line in lines if FAILURE in line]
    # A chain of exceptions begins with its cause.
    pattern = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)(\(\w+\))?(:|$)")
    raised = [line for line in lines if pattern.match(line)]
    # Flower's command line frames what it has to say, and breaks it where the frame ends.
    framed = " ".join(line.strip("│ ") for line in lines if line.startswith("│"))
    last = [line for line in lines if line][-1:]
    if status:
        last = [f"Flower says of the run: {status}; something may have killed its process"]
    return next(filter(None, [*told, *raised, framed, *last]), "Flower said nothing")


def _plain(line: str) -> str:
    """Drop colours and the name of the worker that printed the line."""
    return re.sub(r"\x1b\[[0-9;]*m|^\s*\(\w[^)]*pid=[^)]*\)", "", line).strip()


def _log(folder: Path) -> str:
    """Return what the SuperLink and all that it started printed."""
    path = folder / "superlink.log"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


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


def _end_processes(folder: Path) -> None:
    """End everything that this run started, Ray's processes included."""
    asked: set[int] = set()
    start = time.monotonic()
    while members := _members(folder):
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


def _members(folder: Path) -> set[int]:
    """Return the live processes of this run: those with its mark, and their descendants.

    Flower and Ray put processes into sessions of their own, so that no process group holds all;
    but all inherit the environment. Ray's workers overwrite theirs with their title. Where there
    is no ``/proc`` this is empty; there Flower's and Ray's processes end when their parent has.
    """
    mark = f"FLWR_HOME={folder}".encode()
    parents: dict[int, int] = {}
    members: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            environment = (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if state != "Z":
            parents[int(entry.name)] = int(parent)
            if mark in environment.split(b"\0"):
                members.add(int(entry.name))
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members
