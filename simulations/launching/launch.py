"""Submit the Flower app to a SuperLink of its own, wait for it, and leave nothing behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import tomli_w

import split_unlearning
from split_unlearning.foundations.options import Value
from split_unlearning.simulations.console import FAILURE
from split_unlearning.simulations.launching.superlink import (
    CONNECTION,
    environment_of,
    log_of,
    program,
    short_folder,
    superlink,
)
from split_unlearning.simulations.project import project

_COMPLETED = "finished:completed"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the error in one line if it failed, and all that was printed.

    A run in this process says what was raised, too.
    """

    succeeded: bool
    error: str
    log: str
    raised: Exception | None = None


class Engine(Protocol):
    """Does what a run config asks for, with so many clients: `run_app` or ``run_here``.

    What its clients reserve is settled before.
    """

    def __call__(
        self, settings: Mapping[str, Value], clients: int, *, on_line: Callable[[str], None]
    ) -> Outcome:
        """Return how it ended; `on_line` takes every line that the run prints."""


def stage_app(folder: Path) -> Path:
    """Assemble the Flower app, from this checkout or the installed package, as a new folder.

    It lies in `folder`, and is what ``flwr run`` takes.
    """
    package = Path(split_unlearning.__file__).parent
    description = project()
    bundled = description["tool"]["flwr"]["app"]
    # Flower's own bundle of a checkout has the rooms beside the package. Here they lie in it, so
    # that a folder `models` of the user's is still the one that a plug-in of the user's imports.
    patterns = [pattern.removeprefix(f"{package.name}/") for pattern in bundled["fab-include"]]
    bundled["fab-include"] = [f"{package.name}/{pattern}" for pattern in patterns]
    app = folder / "app"
    for pattern in patterns:
        for source in package.glob(pattern):
            target = app / package.name / source.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (app / "pyproject.toml").write_text(tomli_w.dumps(description), encoding="utf-8")
    return app


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
    another run's is met; all that it started has ended when this returns or raises.

    `settings` are the run-config keys that differ from the app's defaults. Ray reserves
    `client_cpus`, which Flower takes whole, and `client_gpus`, which can be shared, for each client
    that works. `on_line` receives every line that the run prints, while it prints it. The app is
    this project's own by default.
    """
    with tempfile.TemporaryDirectory(
        prefix="split-", dir=short_folder(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        (folder / "overrides.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
        environment = environment_of(folder)
        federation = (
            f"num-supernodes={clients} client-resources-num-cpus={client_cpus} "
            f"client-resources-num-gpus={client_gpus}"
        )
        command = [program("flwr"), "run", str(app or stage_app(folder)), CONNECTION]
        command += ["--stream", "--run-config", str(folder / "overrides.toml")]
        command += ["--federation-config", federation]
        with superlink(folder, environment) as is_up:
            if not is_up:
                log = log_of(folder)
                last = _plain((log.strip().splitlines() or ["it printed nothing"])[-1])
                return Outcome(False, f"Flower's SuperLink does not start: {last}", log)
            lines, code = _stream(command, environment, on_line)
            status = _status(lines, environment) if code == 0 else ""
        log = "".join(lines) + log_of(folder)
        # Flower calls a run completed, too, whose ServerApp ended itself with sys.exit(1).
        if status == _COMPLETED and FAILURE not in log:
            return Outcome(True, "", log)
        return Outcome(False, _error(lines, status), log)


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
    command = [program("flwr"), "list", CONNECTION, "--run-id", started[1], "--format", "json"]
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
    said = [line.partition(FAILURE)[2] for line in lines if FAILURE in line]
    # A chain of exceptions begins with its cause.
    pattern = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)(\(\w+\))?(:|$)")
    raised = [line for line in lines if pattern.match(line)]
    # Flower's command line frames its messages, and breaks them where the frame ends.
    framed = " ".join(line.strip("│ ") for line in lines if line.startswith("│"))
    last = [line for line in lines if line][-1:]
    if status:
        last = [f"Flower says of the run: {status}; something may have killed its process"]
    return next(filter(None, [*said, *raised, framed, *last]), "Flower said nothing")


def _plain(line: str) -> str:
    """Drop colours and the name of the worker that printed the line."""
    return re.sub(r"\x1b\[[0-9;]*m|^\s*\(\w[^)]*pid=[^)]*\)", "", line).strip()
