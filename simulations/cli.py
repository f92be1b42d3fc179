"""The command line: ``split-unlearning run``, ``benchmark``, ``report``, ``unlearn``..."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from models.errors import UserError, refuse
from simulations.command_line import launch
from simulations.command_line.arguments import (
    absolute,
    check_plan,
    check_state_dir,
    check_writable,
    join_ray,
    pair_requests,
    read_config,
    read_settings,
)
from simulations.command_line.catalogue import describe, matrix, table
from simulations.command_line.client_pool import check_client_pool
from simulations.command_line.progress import shown, shown_grid
from unlearning.state_folder import StateError, write_durably

if TYPE_CHECKING:
    from simulations.config import RunConfig
    from simulations.state.state_dir import StateDir

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
_RayAddress = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        show_default=False,
        callback=join_ray,
        help="Join this Ray cluster, as RAY_ADDRESS does.",
    ),
]
_TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write DIR/tensorboard too, for TensorBoard.")
]
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
    ray_address: _RayAddress = "",
    out: _Out = "results",
    verbose: _Verbose = False,
) -> None:
    """Learn, forget, evaluate, and report what it cost whom."""
    with _one_line_errors():
        config = read_config(settings or [], strategy, out)
        folder = Path(config.out)
        check_client_pool(clients, client_cpus, client_gpus)
        check_writable("out", folder)
        plan = check_plan(config, clients)
        check_state_dir(config, clients)
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
    absent: Annotated[
        list[int] | None,
        typer.Option(metavar="NUMBER", help="A client that is away; the others go on without it."),
    ] = None,
    withdraw: Annotated[
        bool,
        typer.Option("--withdraw", help="Take back what was asked and cannot be finished."),
    ] = False,
    client_cpus: _ClientCpus = 1,
    client_gpus: _ClientGpus = 0,
    ray_address: _RayAddress = "",
    out: Annotated[
        str, typer.Option(metavar="DIR", help="For result.json, beside the one in STATE_DIR.")
    ] = "",
    verbose: _Verbose = False,
) -> None:
    """Forget what is asked weeks later; only the clients that ask are needed (with splitwiper).

    The same command again finishes what was interrupted; without --forget it finishes whatever was.
    """
    with _one_line_errors():
        from simulations.session.session import needed_for
        from simulations.state.reception import AlreadyForgottenError, receive
        from simulations.state.reception import withdraw as take_back
        from simulations.state.state_dir import held

        path = absolute(state_dir)
        state = held(path)
        assert state.config is not None
        if withdraw:
            if forget or drop_client or absent:
                allowed = "no --forget, no --drop-client and no --absent beside it"
                raise refuse("--withdraw", True, allowed)
            with state.locked():
                taken = take_back(held(path))
            typer.echo(f"withdrawn, and not forgotten: {'; '.join(taken)}")
            return
        check_client_pool(state.num_clients, client_cpus, client_gpus)
        requests = pair_requests(
            forget or [], client or [], drop_client, state.config.forget_client
        )
        config = replace(state.config, out=absolute(out) if out else "", verify=False)
        if out:
            config.check()
            check_writable("out", Path(config.out))
        try:
            with state.locked():
                # Read again: until now another process may have had it.
                state = held(path)
                tasks = receive(state, requests, drop_client, again, absent or [])
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
    ray_address: _RayAddress = "",
    verbose: _Verbose = False,
) -> None:
    """Train again without what was forgotten, compare every segment, and sign what is found.

    Exits with 0 if all are equal, with 3 if not, or if a certificate is not as it was signed.
    """
    with _one_line_errors():
        from simulations.state.agenda import dropped, tasks_of
        from simulations.state.state_dir import held

        if not state_dir and not certificate:
            raise refuse("verify", "", "a STATE_DIR, or --certificate FILE, or both")
        state = held(absolute(state_dir)) if state_dir else None
        if certificate:
            _check_certificate(Path(certificate), state)
            return
        assert state is not None
        assert state.config is not None
        check_client_pool(state.num_clients, client_cpus, client_gpus)
        tasks = tasks_of(state.journal)
        clients = state.num_clients - len(dropped(tasks))
        config = replace(state.config, out="", verify=True)
        _launch(config, clients, client_cpus, client_gpus, state.path, verbose)
        _check_certificate(state.certificate, state)


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
    with shown(verbose) as on_line:
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
    from simulations.session.verification import render_certificate
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


@app.command()
def benchmark(
    spec: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="A TOML file, or a name that list shows."),
    ],
    out: Annotated[
        str, typer.Option(metavar="DIR", help="For all that is measured.")
    ] = "benchmark",
    scale: Annotated[
        str, typer.Option(metavar="full|medium|small", help="As the spec has it, or reduced.")
    ] = "full",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in DIR; nothing is done twice.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A run-config key of every run."),
    ] = None,
    client_cpus: _ClientCpus = 1,
    client_gpus: _ClientGpus = 0,
    ray_address: _RayAddress = "",
    tensorboard: _TensorBoard = False,
    verbose: _Verbose = False,
) -> None:
    """Run a grid of strategies, methods, data and seeds; a failing run does not stop the others.

    Exits with 1 if any of them failed.
    """
    with _one_line_errors():
        from simulations.benchmark.measuring import measure
        from simulations.benchmark.runner import carry_out, failures, lay_out
        from simulations.benchmark.spec import find_spec, read_spec
        from simulations.reporting.scalars import check_tensorboard

        folder = Path(absolute(out))
        check_client_pool(1, client_cpus, client_gpus)
        check_writable("out", folder)
        if tensorboard:
            check_tensorboard()
        read = read_spec(find_spec(spec), scale, read_settings(settings or []))
        cells = lay_out(
            read, folder, resume, command=shlex.join(["split-unlearning", *sys.argv[1:]])
        )
        with shown_grid(len(cells), verbose) as (on_line, on_progress):
            ended = carry_out(
                folder,
                client_cpus=client_cpus,
                client_gpus=client_gpus,
                on_line=on_line,
                on_progress=on_progress,
            )
        failed = [*failures(folder), *measure(folder)]
        for text in failed:
            typer.echo(text)
        if ended:
            _end(f"error: {ended} (log: {folder / 'log.txt'})", _RUN_FAILED)
        if len(failures(folder)) < len(cells):
            typer.echo(_written_report(folder, tensorboard))
        if failed:
            raise typer.Exit(_RUN_FAILED)


@app.command()
def report(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder that a benchmark has written.")
    ],
    tensorboard: _TensorBoard = False,
) -> None:
    """Write a benchmark's tables and figures: DIR/report.html, and DIR/tables for papers."""
    with _one_line_errors():
        typer.echo(_written_report(Path(folder), tensorboard))


def _written_report(folder: Path, tensorboard: bool) -> str:
    """Write the report of a benchmark, and say where it is, and of how much."""
    from simulations.reporting.scalars import check_tensorboard, write_scalars
    from simulations.reporting.writing import write_report

    if tensorboard:
        check_tensorboard()
    benchmark = write_report(folder).benchmark
    if tensorboard:
        write_scalars(benchmark, folder / "tensorboard")
    told = {"failed": len(benchmark.failures), "missing": len(benchmark.missing)}
    beside = "".join(f", {count} {name}" for name, count in told.items() if count)
    count = len(benchmark.cells)
    cells = "1 cell" if count == 1 else f"{count} cells"
    return f"{cells}{beside}; the report is {folder / 'report.html'}"


@app.command("list")
def list_names() -> None:
    """List what a run config can name, and its keys."""
    with _one_line_errors():
        from models.split import MODELS, TORCHVISION
        from simulations.benchmark.spec import titles
        from simulations.config import RunConfig
        from simulations.data.library import LIBRARY
        from simulations.data.partition import DISTRIBUTIONS
        from simulations.data.sources import DATASETS
        from simulations.data.tasks import DIFFERENT_TASKS
        from strategies.registry import STRATEGIES
        from unlearning.methods import METHODS

        _print_table("Strategies (strategy)", describe(STRATEGIES))
        _print_table("Unlearning methods (unlearning)", describe(METHODS))
        _print_table("Which strategy can forget how", matrix(STRATEGIES, METHODS))
        _print_table("Data sets (dataset)", DATASETS)
        _print_table("Distributions (distribution)", DISTRIBUTIONS | DIFFERENT_TASKS | LIBRARY)
        any_other = "Any classification model of torchvision; cut names a layer."
        _print_table("Benchmarks (benchmark NAME)", titles())
        _print_table("Models (model)", describe(MODELS) | {f"{TORCHVISION}NAME": any_other})
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


def _empty(folder: Path) -> None:
    """Remove what an earlier run left in the folder, lest it is taken for this run's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "log.txt"):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise refuse("out", str(folder), f"a folder that you can write to ({error})") from error


def _print_table(title: str, lines: Mapping[str, str]) -> None:
    typer.echo(table(title, lines) + "\n")
