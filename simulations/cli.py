"""The command line: ``split-unlearning run``, ``unlearn``, ``verify`` and ``list``."""

from __future__ import annotations

import inspect
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from models.errors import UserError, refuse
from models.registry import Registry
from simulations import launch
from simulations.console import FAILURE, PROGRESS
from unlearning.state_folder import StateError, write_durably

if TYPE_CHECKING:
    from simulations.config import RunConfig
    from simulations.state_dir import StateDir
    from strategies.base import SplitStrategy
    from unlearning.methods import UnlearningMethod

# What needs torch, scikit-learn or rich is imported by the command that uses it: asking for help,
# or mistyping an option, is answered at once.

app = typer.Typer(
    help="Run, compare and trust forgetting in split learning, on Flower and Ray.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_RUN_FAILED, _BAD_ARGUMENTS, _DOES_NOT_HOLD, _INTERRUPTED = 1, 2, 3, 130


def main() -> None:
    """Run the command line; being told to end cleans up as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    app()


def _number(meaning: str) -> Any:
    return typer.Option(metavar="NUMBER", show_default=False, help=meaning)


_Out = Annotated[
    str, typer.Option(metavar="DIR", show_default=False, help="For result.json (results).")
]
_ClientCpus = Annotated[int, _number("CPUs that a client reserves (1).")]
_ClientGpus = Annotated[float, _number("GPUs that a client reserves (0).")]
_Verbose = Annotated[bool, typer.Option("--verbose", help="Print all that Flower says.")]
_StateDir = Annotated[
    str, typer.Argument(metavar="STATE_DIR", help="Folder that a run with state-dir has made.")
]


@app.command()
def run(
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="How to learn: --set strategy=NAME.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A run-config key; can be repeated."),
    ] = None,
    clients: Annotated[int, _number("Number of clients (5).")] = 5,
    client_cpus: _ClientCpus = 1,
    client_gpus: _ClientGpus = 0,
    out: _Out = "results",
    verbose: _Verbose = False,
) -> None:
    """Learn, forget, evaluate, and report what it cost whom."""
    with _one_line_errors():
        config = _read_config(settings or [], strategy, out)
        folder = Path(config.out)
        _check_numbers(clients, client_cpus, client_gpus)
        _check_writable("out", folder)
        plan = _plan(config, clients)
        _check_state_dir(config, clients)
        _empty(folder)
        if not verbose:
            typer.echo(plan)
        seconds = _launch(config, clients, client_cpus, client_gpus, folder, verbose)
        _show_result(folder, seconds, verbose)


@app.command()
def unlearn(
    state_dir: _StateDir,
    forget: Annotated[
        list[str] | None,
        typer.Option(metavar="REQUEST", help="As the run-config key forget; can be repeated."),
    ] = None,
    client: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER", help="Who asks; once, or once for each --forget, in their order."
        ),
    ] = None,
    drop_client: Annotated[
        bool,
        typer.Option("--drop-client", help="The client is gone: forget all that it ever gave."),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="What was asked before is asked anew, of what is left."),
    ] = False,
    withdraw: Annotated[
        bool,
        typer.Option("--withdraw", help="Take back what was asked and cannot be finished."),
    ] = False,
    client_cpus: _ClientCpus = 1,
    client_gpus: _ClientGpus = 0,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="For result.json, beside the one in STATE_DIR.")
    ] = "",
    verbose: _Verbose = False,
) -> None:
    """Forget what is asked weeks later; only the clients that ask are needed (with splitwiper).

    The same command again finishes what was interrupted; without --forget it finishes whatever was.
    """
    with _one_line_errors():
        from simulations.reception import AlreadyForgottenError, receive
        from simulations.reception import withdraw as take_back
        from simulations.session import needed_for
        from simulations.state_dir import held

        path = _absolute(state_dir)
        state = held(path)
        assert state.config is not None
        if withdraw:
            if forget or drop_client:
                raise refuse("--withdraw", True, "no --forget and no --drop-client beside it")
            with state.locked():
                taken = take_back(held(path))
            typer.echo(f"withdrawn, and not forgotten: {'; '.join(taken)}")
            return
        _check_numbers(state.num_clients, client_cpus, client_gpus)
        requests = _requests(forget or [], client or [], drop_client, state.config.forget_client)
        config = replace(state.config, out=_absolute(out) if out else "", verify=False)
        if out:
            config.check()
            _check_writable("out", Path(config.out))
        try:
            with state.locked():
                # Read again: until now another process may have had it.
                state = held(path)
                tasks = receive(state, requests, drop_client, again)
        except AlreadyForgottenError as done:
            typer.echo(str(done))
            return
        if drop_client:
            clients = ", ".join(str(one) for task in tasks for one in task.counts)
            typer.echo(f"this forgets all that client {clients} ever gave, for good")
        needed = needed_for(config, state.num_clients, tasks)
        nodes = max(1, len(needed))
        folder = Path(path)
        hint = "; what is asked is written down: the same command finishes it"
        seconds = _launch(config, nodes, client_cpus, client_gpus, folder, verbose, hint)
        _show_result(folder, seconds, verbose)


@app.command()
def verify(
    state_dir: Annotated[
        str, typer.Argument(metavar="[STATE_DIR]", help="Folder that a run has made.")
    ] = "",
    certificate: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Train nothing; check that this certificate is as it was signed."
        ),
    ] = "",
    client_cpus: _ClientCpus = 1,
    client_gpus: _ClientGpus = 0,
    verbose: _Verbose = False,
) -> None:
    """Train again without what was forgotten, compare every segment, and sign what is found.

    Exits with 0 if all are equal, with 3 if not, or if a certificate is not as it was signed.
    """
    with _one_line_errors():
        from simulations.agenda import dropped, tasks_of
        from simulations.state_dir import held

        if not state_dir and not certificate:
            raise refuse("verify", "", "a STATE_DIR, or --certificate FILE, or both")
        state = held(_absolute(state_dir)) if state_dir else None
        if certificate:
            _check_certificate(Path(certificate), state)
            return
        assert state is not None
        assert state.config is not None
        _check_numbers(state.num_clients, client_cpus, client_gpus)
        tasks = tasks_of(state.journal)
        clients = state.num_clients - len(dropped(tasks))
        config = replace(state.config, out="", verify=True)
        _launch(config, clients, client_cpus, client_gpus, state.path, verbose)
        _check_certificate(state.certificate, state)


def _requests(
    forget: list[str], clients: list[int], drop: bool, default: int
) -> list[tuple[str, int]]:
    """Pair requests with who asks."""
    if drop:
        if forget or not clients:
            raise refuse(
                "--drop-client",
                "; ".join(forget) or "no --client",
                "--client NUMBER, and no --forget: everything of that client is forgotten",
            )
        return [(f"client:{one}", one) for one in clients]
    if len(clients) not in (0, 1, len(forget)):
        allowed = f"once, or {len(forget)} times, as often as --forget"
        raise refuse("--client", " ".join(map(str, clients)), allowed)
    if any(one < 0 for one in clients):
        raise refuse("--client", min(clients), "the number of a client, from 0")
    asking = clients or [default]
    return [
        (_PATHS["forget"](text), asking[number % len(asking)]) for number, text in enumerate(forget)
    ]


def _launch(
    config: RunConfig,
    clients: int,
    client_cpus: int,
    client_gpus: float,
    folder: Path,
    verbose: bool,
    hint: str = "",
) -> float:
    """Have Flower run the app, and show how far it is; return the seconds that it took.

    If it fails, end with the reason and a hint; the log is in the folder.
    """
    start = time.monotonic()
    with _progress(verbose) as on_line:
        outcome = launch.run_app(
            config.as_mapping(),
            clients,
            client_cpus=client_cpus,
            client_gpus=client_gpus,
            on_line=on_line,
        )
    if not outcome.succeeded:
        log = folder / "log.txt"
        # It may lie in a state-dir, where everything is for its owner only.
        with suppress(OSError):
            write_durably(log, outcome.log.encode())
        _end(f"error: {outcome.error} (log: {log}){hint}", _RUN_FAILED)
    return time.monotonic() - start


def _show_result(folder: Path, seconds: float, verbose: bool) -> None:
    from simulations.report import render

    result = folder / "result.json"
    if not result.exists():
        _end("error: the run wrote no result.json", _RUN_FAILED)
    if not verbose:
        typer.echo(render(json.loads(result.read_text(encoding="utf-8"))))
    typer.echo(f"{seconds:.0f} s; all figures are in {result}")


def _check_certificate(path: Path, state: StateDir | None) -> None:
    """Print a certificate; end with 3 if it does not hold, or is not as it was signed."""
    from simulations.verification import render_certificate
    from unlearning.certificate import check

    try:
        certificate = json.loads(path.read_text(encoding="utf-8"))
        check(certificate, state.key.read_bytes() if state else None)
        text = render_certificate(certificate)
    except (UserError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = error if isinstance(error, UserError) else "it is no certificate"
        _end(f"error: {path}: {reason}", _DOES_NOT_HOLD)
    typer.echo(text)
    if state is not None and certificate["journal"] != state.journal.head:
        typer.echo("the state-dir has changed since: split-unlearning verify makes a new one")
    if not certificate["holds"]:
        raise typer.Exit(_DOES_NOT_HOLD)


@app.command("list")
def list_names() -> None:
    """List what a run config can name, and its keys."""
    with _one_line_errors():
        from models.split import MODELS
        from simulations.config import RunConfig
        from simulations.data import DATASETS
        from simulations.partition import DISTRIBUTIONS
        from strategies.registry import STRATEGIES
        from unlearning.methods import METHODS

        _print_table("Strategies (strategy)", _describe(STRATEGIES))
        _print_table("Unlearning methods (unlearning)", _describe(METHODS))
        _print_table("Which strategy can forget how", _matrix(STRATEGIES, METHODS))
        _print_table("Data sets (dataset)", DATASETS)
        _print_table("Distributions (distribution)", DISTRIBUTIONS)
        _print_table("Models (model)", _describe(MODELS))
        _print_table(
            "Run-config keys (--set KEY=VALUE)",
            {
                key.name.replace("_", "-"): f"{key.metadata['meaning']} (default: {key.default!r})"
                for key in fields(RunConfig)
            },
        )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Say what the user has to know in one line, and exit with the code that stands for it."""
    try:
        yield
    except StateError as error:
        _end(f"error: {error}", _RUN_FAILED)
    except UserError as error:
        _end(f"error: {error}", _BAD_ARGUMENTS)
    except OSError as error:
        _end(f"error: {error}", _RUN_FAILED)
    except KeyboardInterrupt:
        _end("interrupted; all that was started has ended", _INTERRUPTED)


def _end(text: str, code: int) -> NoReturn:
    typer.echo(" ".join(text.split()), err=True)
    raise typer.Exit(code)


def _read_config(settings: list[str], strategy: str | None, out: str) -> RunConfig:
    """Read the run config; paths in it are meant from the current folder."""
    from simulations.config import RunConfig, parse_setting

    chosen = {"out": out} | dict(parse_setting(text) for text in settings)
    if strategy is not None:
        chosen["strategy"] = strategy
    if not chosen["out"]:
        raise refuse("out", "", "a folder")
    for key, absolute in _PATHS.items():
        if isinstance(value := chosen.get(key), str):
            chosen[key] = absolute(value)
    return RunConfig.from_mapping(chosen)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _absolute_after(prefix: str, text: str) -> str:
    """Make the path behind a prefix absolute; leave what has no such prefix or no path."""
    text = text.strip()
    path = text.removeprefix(prefix)
    return prefix + _absolute(path) if path and path != text else text


_PATHS: Mapping[str, Callable[[str], str]] = {
    "dataset": lambda text: _absolute_after("npz:", text),
    "forget": lambda text: ";".join(_absolute_after("ids:", part) for part in text.split(";")),
    "out": _absolute,
    "state-dir": lambda text: _absolute(text) if text else text,
}


def _check_numbers(clients: int, client_cpus: int, client_gpus: float) -> None:
    if clients < 1:
        raise refuse("--clients", clients, "an integer >= 1")
    # Flower divides by the CPUs of a client, and knows no fractions of one.
    if client_cpus < 1:
        raise refuse("--client-cpus", client_cpus, "an integer >= 1")
    if not (math.isfinite(client_gpus) and client_gpus >= 0):
        raise refuse("--client-gpus", client_gpus, "a number >= 0")
    # What another cluster has is known only there.
    if not os.environ.get("RAY_ADDRESS"):
        import torch

        cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
        if client_cpus > cpus:
            raise refuse("--client-cpus", client_cpus, f"at most {cpus}, what this machine has")
        if client_gpus > gpus:
            raise refuse("--client-gpus", client_gpus, f"at most {gpus}, what this machine has")


def _check_writable(key: str, folder: Path) -> None:
    """Refuse a folder that cannot be created or written to; create nothing yet."""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise refuse(key, str(folder), "a folder that you can write to")


def _check_state_dir(config: RunConfig, clients: int) -> None:
    """Refuse a state-dir that cannot be made, or that holds something else; create nothing yet."""
    if not config.state_dir:
        return
    from simulations.agenda import tasks_of
    from simulations.state_dir import StateDir

    state = StateDir(Path(config.state_dir))
    if config.verify:
        raise refuse("verify", True, "false; split-unlearning verify STATE_DIR does it")
    if state.config is None:
        _check_writable("state-dir", state.path)
        return
    state.check_same(config)
    if clients != state.num_clients:
        raise refuse("--clients", clients, f"{state.num_clients}, as {state.path} was made with")
    if all(task.measured for task in tasks_of(state.journal)):
        allowed = f"a new folder; split-unlearning unlearn {state.path} forgets what it learned"
        raise refuse("state-dir", str(state.path), allowed)


def _plan(config: RunConfig, clients: int) -> str:
    """Refuse what the data or the number of clients make impossible; return who holds what."""
    from simulations.partition import plan_table
    from simulations.plan import prepare

    prepared = prepare(config, clients)
    return plan_table(prepared.plan, prepared.dataset)


def _empty(folder: Path) -> None:
    """Remove what an earlier run left in the folder, lest it is taken for this run's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "log.txt"):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise refuse("out", str(folder), f"a folder that you can write to ({error})") from error


@contextmanager
def _progress(verbose: bool) -> Iterator[Callable[[str], None]]:
    """Show how far the run is; yield what takes the lines that it prints."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console()

    def news(line: str) -> str:
        is_news = line.startswith(PROGRESS) and not line.startswith(FAILURE)
        return line.removeprefix(PROGRESS) if is_news else ""

    def print_news(line: str) -> None:
        if text := news(line):
            typer.echo(text)

    if verbose:
        yield typer.echo
    elif not console.is_terminal:
        typer.echo("starting Flower and Ray")
        yield print_news
    else:
        text_column = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1))
        columns = (SpinnerColumn(), TimeElapsedColumn(), text_column)
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting Flower and Ray", total=None)
            yield lambda line: bar.update(task, description=news(line) or None)


def _describe(registry: Registry[Any]) -> dict[str, str]:
    """Return the first line of each member's docstring; why, for one that cannot be imported."""
    lines = {}
    for name in registry.names():
        try:
            text = inspect.getdoc(registry.get(name)) or ""
        except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything
            text = f"{type(error).__name__}: {error}"
        lines[name] = text.partition("\n")[0]
    return lines


def _matrix(
    strategies: Registry[type[SplitStrategy]], methods: Registry[type[UnlearningMethod]]
) -> dict[str, str]:
    """Return, by strategy, a mark below the name of each method that it can carry out."""
    from simulations.config import fitting

    names = methods.names()
    lines = {"": "  ".join(names)}
    for strategy in strategies.names():
        try:
            possible = fitting(strategies.get(strategy))
        except UserError:
            # Why it cannot be used stands in the table of strategies.
            continue
        marks = ("x" if name in possible else "-" for name in names)
        lines[strategy] = "  ".join(
            f"{mark:{len(name)}}" for mark, name in zip(marks, names, strict=True)
        )
    return lines


def _print_table(title: str, lines: Mapping[str, str]) -> None:
    width = max(map(len, lines), default=0)
    typer.echo(title)
    for name, text in lines.items():
        typer.echo(f"  {name:{width}}  {text}".rstrip())
    typer.echo()
