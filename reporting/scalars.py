"""A benchmark for TensorBoard: each cell is a run, its curves and figures are scalars."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from split_unlearning.foundations.errors import UserError
from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Phase

Scalar = tuple[str, int, float]
"""A tag, a step and a value."""

# Which measures are scalars, and by which tag.
_TAGS = {
    "accuracy/unlearned": "accuracy/forgotten",
    "accuracy/retained": "accuracy/retained",
    "server/train_seconds": "cost, the server/seconds",
    **{
        f"{whose}/{cost}": f"cost, {who}/{cost.removeprefix('train_').replace('_', ' ')}"
        for whose, who in (("requesting", "a client that asks"), ("other", "another client"))
        for cost in ("train_seconds", "bytes_up", "bytes_down", "messages")
    },
    **{
        f"membership{attack}/{rate}": f"membership {attack.strip('_') or 'after'}/{name}"
        for attack in ("_before", "", "_reference", "_pair")
        for rate, name in (("hit_rate", "hit rate"), ("auc", "area under the curve"))
    },
}
# The same for measures whose last part is a name that the run chose.
_STARTS = {
    "accuracy/per_task/": "accuracy, by data set/",
    "divergence/": "distance from the retrained model/",
    "backdoor/": "backdoor/",
}


def check_tensorboard() -> None:
    """Refuse to write scalars where there is nothing to write them with.

    Raises
    ------
    UserError
        That names what to install.
    """
    if find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard, which comes with "
            "split-unlearning[tensorboard]"
        )


def write_scalars(benchmark: Benchmark, folder: Path) -> None:
    """Write the scalars of every finished cell, each in a folder of its name.

    `folder` is for TensorBoard's ``--logdir``; scalars that were written there before are replaced.
    """
    check_tensorboard()
    from tensorboard.summary import Writer

    for cell in benchmark.cells:
        run = folder / cell.id
        for former in run.glob("events.out.tfevents.*"):
            former.unlink()
        writer = Writer(str(run))
        for phase in cell.phases:
            for tag, step, value in scalars(phase):
                writer.add_scalar(tag, value, step)
        writer.close()


def scalars(phase: Phase) -> Iterator[Scalar]:
    """Yield what was measured of one phase: seconds, bytes, and shares from 0 to 1.

    The step of an accuracy by epoch is the epoch; of anything else it is the phase's number, 0 for
    learning.
    """
    name = f"phase {phase.task}" if phase.task else "learning"
    for kind, epochs in phase.by_epoch.items():
        for epoch, value in epochs.items():
            yield f"{name}: accuracy by epoch/{kind}", epoch, value
    for measure, value in phase.measures.items():
        if measure in _TAGS:
            yield _TAGS[measure], phase.task, value
        for start, tag in _STARTS.items():
            if measure.startswith(start):
                yield tag + measure.removeprefix(start), phase.task, value
