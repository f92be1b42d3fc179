"""What Python's door gives back: a run's result, and the folder that it was written to."""

from __future__ import annotations

import os
import shutil
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from split_unlearning.evaluation.outputs import FILE as OUTPUTS
from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.reporting.result import Phase, Result

if TYPE_CHECKING:
    import pandas as pd

_RESULT = "result.json"
# A run on a state-dir has its result there, beside what is for the state's owner alone.
_WRITTEN = (_RESULT, OUTPUTS)


class Run:
    """A run that has ended.

    Attributes
    ----------
    result : Result
        All that was measured, as in ``result.json``.
    folder : Path
        What the run wrote. A temporary folder is deleted with this object.

    Raises
    ------
    UserError
        If the folder holds no result.
    """

    def __init__(self, folder: str | os.PathLike[str], temporary: bool = False) -> None:
        self.folder = Path(folder).absolute()
        if temporary:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self.result = Result.read(self.folder / _RESULT)
        except OSError as error:
            allowed = f"a folder in which a run has written {_RESULT}"
            raise refuse("folder", str(self.folder), allowed) from error
        except ValueError as error:
            raise UserError(str(error)) from error

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Return the run that wrote a folder, or that was saved there."""
        return cls(folder)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copy the result, and an audit's outputs, to a folder, which is made; return its path.

        Raises
        ------
        UserError
            If there is something of that name.
        """
        target = Path(folder).absolute()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise refuse("folder", str(target), "a new or an empty folder")
        target.mkdir(parents=True, exist_ok=True)
        for name in _WRITTEN:
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, target)
        return target

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Learning, then each forgetting, with all that was measured of it."""
        return self.result.phases

    def to_frame(self, by: Literal["client", "phase"] = "client") -> pd.DataFrame:
        """Return the measurements as a tidy table, as `Result.to_frame`."""
        return self.result.to_frame(by)

    @property
    def accuracy(self) -> pd.DataFrame:
        """A row a phase: the share of test samples that are predicted right.

        ``forgotten`` is of what the request is about, ``retained`` of what no request is about.
        """
        columns = {"forgotten_accuracy": "forgotten", "retained_accuracy": "retained"}
        frame = self.result.to_frame("phase").rename(columns=columns)
        return frame[["task", "phase", "request", *columns.values()]]

    @property
    def cost(self) -> pd.DataFrame:
        """A row a client and phase: seconds of training, bytes and messages; seconds on the wire.

        The server's are in ``to_frame("phase")``.
        """
        about = ["task", "phase", "request", "client", "requested"]
        frame = self.result.to_frame("client")
        costs = ["train_seconds", "bytes_up", "bytes_down", "messages", "transmission_seconds"]
        return frame[[*about, *costs]]

    def __repr__(self) -> str:
        result = self.result
        requests = "; ".join(phase.request for phase in self.phases if phase.request) or "nothing"
        return (
            f"<Run of {result.strategy} with {result.clients} clients on "
            f"{result.config['dataset']}: forgot {requests} by {result.unlearning}>"
        )


def load(folder: str | os.PathLike[str]) -> Run:
    """Return the run that wrote a folder, or that was saved there, as `Run.load`."""
    return Run.load(folder)
