"""What TensorBoard shows of a benchmark: each cell a run, its curves and figures as scalars."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from split_unlearning.foundations.errors import UserError
from split_unlearning.reporting.benchmark import Benchmark
from split_unlearning.reporting.cells import Phase

Scalar = tuple[str, int, float]
"""A tag, a step and a value."""

_COSTS = ("seconds", "bytes_up", "bytes_down", "messages")


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

    Parameters
    ----------
    benchmark : Benchmark
        As it was read.
    folder : Path
        For TensorBoard's ``--logdir``; what was written there before is replaced.
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
    """Yield what was measured of one phase.

    Yields
    ------
    tag, step, value
        Accuracies by epoch, the step being the epoch, under the phase; what there is once a phase,
        the step being its number, 0 for learning. Seconds, bytes, and shares from 0 to 1.
    """
    name = f"phase {phase.task}" if phase.task else "learning"
    for epoch in phase.by_epoch:
        for kind, value in (("forgotten", epoch.forgotten), ("retained", epoch.retained)):
            if value is not None:
                yield f"{name}: accuracy by epoch/{kind}", epoch.epoch, value
    once = {
        "accuracy/forgotten": phase.forgotten,
        "accuracy/retained": phase.retained,
        "cost, the server/seconds": phase.server_seconds,
    }
    once |= {f"accuracy, by data set/{name}": share for name, share in phase.by_data_set.items()}
    for whose, requested in (("a client that asks", True), ("another client", False)):
        for cost in _COSTS:
            tag = f"cost, {whose}/{cost.replace('_', ' ')}"
            once[tag] = phase.mean_cost(cost, requested)
    for when, found in phase.membership.items():
        once[f"membership {when}/hit rate"] = found.hit_rate
        once[f"membership {when}/area under the curve"] = found.auc
    once |= {f"distance from the retrained model/{who}": d for who, d in phase.divergence.items()}
    once |= {f"backdoor/{when}": rate for when, rate in phase.backdoor.items()}
    for tag, value in once.items():
        if value is not None:
            yield tag, phase.task, value
