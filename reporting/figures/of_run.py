"""One run at a glance, for a notebook: accuracy and cost, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from io import BytesIO
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from split_unlearning.reporting.result import ClientCost, Phase, Result

_WIDTH = 0.38


class Picture(Figure):
    """A figure that a notebook shows, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        sink = BytesIO()
        self.savefig(sink, format="png", dpi=150)
        return sink.getvalue()


def draw(result: Result) -> Picture:
    """Draw three panels with a pair of bars a phase.

    They show the accuracy on what is forgotten and on what is retained, in percent; the seconds
    that a client trained, and the megabytes (10^6 bytes) that it sent and was sent, as the mean of
    the clients that ask and of the others.
    """
    phases = [_name(phase) for phase in result.phases]
    style = files("split_unlearning.reporting.figures") / "report.mplstyle"
    with mpl.rc_context(fname=str(style)):
        picture = Picture(figsize=(7, 2.4), layout="constrained")
        accuracy, seconds, traffic = picture.subplots(1, 3)
        shares = {
            "forgotten": [phase.accuracy.unlearned for phase in result.phases],
            "retained": [phase.accuracy.retained for phase in result.phases],
        }
        _bars(accuracy, "Accuracy (%)", phases, _scaled(shares, 100))
        accuracy.set_ylim(0, 100)
        _bars(seconds, "Training a client (s)", phases, _means(result, "train_seconds"))
        _bars(
            traffic,
            "Traffic a client (MB)",
            phases,
            _scaled(_means(result, "bytes_up", "bytes_down"), 1e-6),
        )
        for panel in (accuracy, traffic):
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    return picture


Heights = Mapping[str, list[float | None]]


def _bars(panel: Axes, title: str, phases: list[str], heights: Heights) -> None:
    for number, (name, values) in enumerate(heights.items()):
        places = [place + (number - 0.5) * _WIDTH for place in range(len(phases))]
        # A bar that is not there: nobody was to be measured.
        panel.bar(places, [value or 0.0 for value in values], _WIDTH, label=name)
    panel.set_title(title, fontsize="medium")
    panel.set_xticks(range(len(phases)), phases)
    panel.set_xlim(-0.6, len(phases) - 0.4)


def _means(result: Result, *costs: str) -> dict[str, list[float | None]]:
    def mean(clients: tuple[ClientCost, ...], asks: bool) -> float | None:
        asked = [client for client in clients if client.requested is asks]
        values = [sum(getattr(client, cost) for cost in costs) for client in asked]
        return fmean(values) if values else None

    return {
        who: [mean(phase.clients, asks) for phase in result.phases]
        for who, asks in (("asks", True), ("others", False))
    }


def _scaled(heights: Heights, factor: float) -> Heights:
    return {
        name: [None if value is None else factor * value for value in values]
        for name, values in heights.items()
    }


def _name(phase: Phase) -> str:
    return "learn" if phase.request is None else f"forget\n{phase.request}"
