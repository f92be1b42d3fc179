"""``split_unlearning.benchmark`` and ``read_results``: many runs, and many results."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from split_unlearning.foundations.errors import RunFailedError, UserError, refuse
from split_unlearning.reporting.result import Result
from split_unlearning.simulations.benchmark import runner
from split_unlearning.simulations.benchmark.measuring import measure
from split_unlearning.simulations.benchmark.spec import Spec, find_spec, make_spec, read_spec
from split_unlearning.simulations.command_line.arguments import check_writable
from split_unlearning.simulations.launching.engines import engine_of
from split_unlearning.simulations.paths import absolute
from split_unlearning.simulations.python.progress import shown
from split_unlearning.simulations.python.settings import read_settings

if TYPE_CHECKING:
    import pandas as pd

Folder = str | os.PathLike[str]


class Benchmark:
    """A benchmark that has ended.

    Attributes
    ----------
    folder : Path
        All that was measured. A temporary folder is deleted with this object.
    failures : tuple of str
        A line for each run that failed or could not be measured.
    """

    def __init__(self, folder: Path, failures: tuple[str, ...], temporary: bool) -> None:
        self.folder, self.failures = folder, failures
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def to_frame(self, by: Literal["client", "phase"] = "phase") -> pd.DataFrame:
        """Return the measurements of all runs as one table, as `read_results`."""
        return read_results(self.folder, by)

    @cached_property
    def report(self) -> Path:
        """The page of tables and figures, which is written when it is first asked for.

        Raises
        ------
        UserError
            If no run has ended well.
        """
        from split_unlearning.reporting.writing import write_report

        write_report(self.folder)
        return self.folder / "report.html"


def benchmark(
    spec: Folder | Mapping[str, Any],
    *,
    out: Folder = "",
    scale: str = "full",
    resume: bool = False,
    engine: str = "local",
    client_cpus: int = 1,
    client_gpus: float = 0,
    progress: bool = True,
    **settings: object,
) -> Benchmark:
    """Run a grid of strategies, methods, data and seeds, as ``split-unlearning benchmark``.

    A run that fails does not stop the others.

    Parameters
    ----------
    spec : path, str or mapping
        A TOML file, the name of a benchmark that ``split-unlearning list`` shows, or what such a
        file holds: ``{"clients": 3, "run": {"dataset": "digits"}, "grid": [{"seed": [0, 1]}]}``.
    out : path
        For all that is measured; by default a temporary folder, which goes with the `Benchmark`.
    scale : {"full", "medium", "small"}
        As the spec has it, or reduced.
    resume : bool
        Go on with what is in `out`; nothing is done twice.
    engine, client_cpus, client_gpus, progress
        As in `run`.
    **settings
        Run-config keys of every run, which go before those of the spec.

    Raises
    ------
    UserError
        For what is not possible, in one line, before any run begins.
    RunFailedError
        If the engine does not start.
    """
    starting = engine_of(engine, 1, client_cpus, client_gpus)
    read = _read(spec, scale, read_settings(settings, engine))
    if out:
        folder = Path(absolute(os.fspath(out)))
        check_writable("out", folder)
    else:
        if resume:
            raise refuse("resume", True, "False (without out there is nothing to go on with)")
        folder = Path(tempfile.mkdtemp(prefix="split-unlearning-"))
    ended = Benchmark(folder, (), temporary=not out)
    runner.lay_out(read, folder, resume, command="split_unlearning.benchmark(...)")
    with shown(progress) as on_line:
        error = runner.carry_out(folder, starting, on_line=on_line, on_progress=lambda _: None)
    ended.failures = (*runner.failures(folder), *measure(folder))
    if error:
        log = folder / "log.txt"
        raise RunFailedError(error, log.read_text(encoding="utf-8") if log.exists() else "")
    return ended


def read_results(folder: Folder, by: Literal["client", "phase"] = "phase") -> pd.DataFrame:
    """Return the measurements of every ``result.json`` below a folder as one tidy table.

    Each row begins with ``run``, the folder of the run relative to `folder`, and has the columns of
    `Result.to_frame`. Run-config keys whose values differ from run to run are columns, too, with
    the names that the run config gives them.

    Raises
    ------
    UserError
        If there is no result, or one of them cannot be read.
    """
    import pandas as pd

    root = Path(folder)
    results = {}
    for path in sorted(root.rglob("result.json")):
        try:
            results[path.parent.relative_to(root).as_posix()] = Result.read(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
    if not results:
        raise refuse("folder", str(root), "a folder with a result.json, in it or below it")
    frames = []
    keys = _varied(list(results.values()))
    for name, result in results.items():
        frame = result.to_frame(by)
        frame.insert(0, "run", name)
        for place, key in enumerate(key for key in keys if key not in frame):
            frame.insert(1 + place, key, result.config.get(key))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


# Where a run wrote says nothing about the run.
_PLACES = {"out", "overwrite", "state-dir", "key-dir", "benchmark"}


def _varied(results: list[Result]) -> list[str]:
    """Return the run-config keys that do not have the same value in all results."""
    keys = dict.fromkeys(key for result in results for key in result.config)
    return [
        key
        for key in keys
        if key not in _PLACES and len({result.config.get(key) for result in results}) > 1
    ]


def _read(spec: Folder | Mapping[str, Any], scale: str, settings: Mapping[str, Any]) -> Spec:
    if isinstance(spec, Mapping):
        return make_spec(Path("spec"), spec, scale, settings)
    return read_spec(find_spec(os.fspath(spec)), scale, settings)
