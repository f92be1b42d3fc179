"""The folder that a run writes to: its result is there once it is complete, and not before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from split_unlearning.evaluation.outputs import FILE, Outputs, write_outputs
from split_unlearning.foundations.errors import UserError, refuse

if TYPE_CHECKING:
    from split_unlearning.reporting.result import Result
    from split_unlearning.simulations.config import RunConfig

RESULT = "result.json"
MODELS = "models"
_UNFINISHED = ".unfinished"


class OutFolder:
    """A folder of this path, which is made when something is written.

    A run writes beside the result of an earlier one, and replaces it at its end: whatever ends the
    run before leaves the earlier result as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def result(self) -> Path:
        """The file of a complete result."""
        return self.path / RESULT

    @property
    def log(self) -> Path:
        """What a run printed that failed."""
        return self.path / "log.txt"

    def check_free(self, config: RunConfig, goes_on: bool) -> None:
        """Refuse to replace a result, unless the run config allows it.

        A run that goes on with a state-dir may replace a result of that state-dir, all of whose
        phases its own result has.

        Raises
        ------
        UserError
            In one line.
        """
        if config.overwrite or not self.result.exists():
            return
        if goes_on and self._state_dir() == config.state_dir:
            return
        allowed = (
            "a folder without a result; or, to replace it, --overwrite (in a run config "
            "overwrite=true, in Python overwrite=True)"
        )
        raise refuse("out", str(self.path), allowed)

    def begin(self) -> None:
        """Make the folder; remove the log of an earlier run, lest it is taken for this run's.

        Raises
        ------
        UserError
            If it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.log.unlink(missing_ok=True)
        except OSError as error:
            allowed = f"a folder that you can write to ({error})"
            raise refuse("out", str(self.path), allowed) from error

    def stamp(self) -> tuple[int, int] | None:
        """Return what is another for each result that was written; None if there is none."""
        try:
            found = self.result.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def write_result(self, result: Result) -> None:
        """Write the result so far."""
        result.write(self._unfinished(RESULT))

    def write_outputs(self, by_task: Mapping[int, Outputs]) -> None:
        """Write the outputs so far."""
        write_outputs(self._unfinished(FILE), by_task)

    def complete(self) -> None:
        """Make what was written the result; outputs and models of an earlier result go with it."""
        if self._unfinished(FILE).exists():
            self._unfinished(FILE).replace(self.path / FILE)
        else:
            (self.path / FILE).unlink(missing_ok=True)
        shutil.rmtree(self.path / MODELS, ignore_errors=True)
        if self.models.exists():
            self.models.replace(self.path / MODELS)
        self._unfinished(RESULT).replace(self.result)

    def clear(self) -> None:
        """Remove what a run that did not get to its end has left."""
        for name in (RESULT, FILE):
            self._unfinished(name).unlink(missing_ok=True)
        shutil.rmtree(self.models, ignore_errors=True)

    @property
    def models(self) -> Path:
        """The folder of the models so far."""
        return self._unfinished(MODELS)

    def _unfinished(self, name: str) -> Path:
        return self.path / f"{name}{_UNFINISHED}"

    def _state_dir(self) -> object:
        """Return the state-dir of the run that wrote the result."""
        try:
            return json.loads(self.result.read_text(encoding="utf-8"))["config"]["state-dir"]
        except (OSError, ValueError, LookupError, TypeError):
            return None


def result_in(folder: Path) -> Result:
    """Return the result that a run has written to a folder.

    Raises
    ------
    UserError
        If there is none, or it is not of this version.
    """
    # It takes a while to import, and a command that refuses does not need it.
    from split_unlearning.reporting.result import Result

    try:
        return Result.read(folder / RESULT)
    except OSError as error:
        allowed = f"a folder in which a run has written {RESULT}"
        raise refuse("folder", str(folder), allowed) from error
    except ValueError as error:
        raise UserError(str(error)) from error
