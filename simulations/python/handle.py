"""What Python's door gives back: a run's result, and the folder that it was written to."""

from __future__ import annotations

import os
import shutil
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from split_unlearning.evaluation.outputs import FILE as OUTPUTS
from split_unlearning.foundations.errors import refuse
from split_unlearning.reporting.result import Phase
from split_unlearning.simulations.out_folder import MODELS, RESULT, result_in

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import nn

# A run on a state-dir has its result there, beside what is for the state's owner alone.
_WRITTEN = (RESULT, OUTPUTS, MODELS)


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
        self.result = result_in(self.folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Return the run that wrote a folder, or that was saved there."""
        return cls(folder)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copy the result, models and an audit's outputs to a folder, which is made; return it.

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
            source = self.folder / name
            if source.is_dir():
                shutil.copytree(source, target / name)
            elif source.exists():
                shutil.copy(source, target)
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

    def plot(self) -> Figure:
        """Draw accuracy and cost phase by phase, as `reporting.figures.of_run.draw`."""
        from split_unlearning.reporting.figures.of_run import draw

        return draw(self.result)

    def model(self, client: int, phase: int = -1) -> nn.Module:
        """Return a client's model: its segment, the server's, and all that stands around them.

        It takes raw samples, as `samples` returns them, as a tensor, and gives the logits of all
        labels, shape (n, labels). It is in evaluation mode and on the CPU; its parts ``client`` and
        ``server`` are the segments. What is rounded where it crosses the cut (the settings
        ``codec`` and ``precision``) is not rounded here.

        Parameters
        ----------
        client : int
            Whose.
        phase : int
            Its place in `phases`: 0 for what was learned, 1 for what is left after the first
            request, -1 for the last, which is the only one that a state-dir keeps.

        Raises
        ------
        UserError
            If the run kept no models, or there is no such client or phase.
        """
        from split_unlearning.simulations.whole_models import whole_model

        return whole_model(self.result, self.folder, client, phase)

    def export(self, client: int, folder: str | os.PathLike[str], phase: int = -1) -> Path:
        """Write a client's model to a new folder, as `simulations.export.export`; return it.

        Raises
        ------
        UserError
            As `model`, and if the folder is not empty.
        """
        from split_unlearning.simulations.export import export

        target = Path(folder).absolute()
        export(self.result, self.folder, client, phase, target)
        return target

    def samples(
        self, client: int, split: Literal["train", "test"] = "test"
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the samples that a client was dealt, and their labels; the data is read again.

        Returns
        -------
        array
            Images as the data set has them, of uint8 or float32, shape (n, channels, height,
            width); or the token ids of texts, of int32, shape (n, length).
        array of int64, shape (n,)

        Raises
        ------
        UserError
            If there is no such client, or the data is not there any more.
        """
        from split_unlearning.simulations.whole_models import raw_samples

        return raw_samples(self.result, client, split)

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
