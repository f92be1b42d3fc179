"""What the tests of a state-dir share: a few digits, runs of a fraction of a second, and looks."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np

from split_unlearning.clients.forgotten import FORGOTTEN, ForgottenSamples
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.distributions.plan import Plan
from split_unlearning.simulations.data.loading import load
from split_unlearning.simulations.preparation import deal
from split_unlearning.simulations.server_app import verify_state
from split_unlearning.simulations.session.session import Session
from split_unlearning.simulations.state.agenda import tasks_of
from split_unlearning.simulations.state.reception import AlreadyForgottenError, receive
from split_unlearning.simulations.state.state_dir import open_state
from split_unlearning.strategies.server.kept_state import KeptState
from split_unlearning.unlearning.state_folder import StateFolder
from split_unlearning.unlearning.tensor_store import TensorStore
from tests.local_grid import LocalGrid, LocalRun, dealt

NUM_CLIENTS = 3
"""Of the runs here, unless one says otherwise."""

SHORT = {
    "forget": "",
    "distribution": "iid",
    "pretrain_epochs": 2,
    "server_epochs": 2,
    "batch_size": 16,
    "momentum": 0.5,
}
"""Settings of a run that learns in a fraction of a second."""

PROJECTED = {
    **SHORT,
    "strategy": "gradient-projection",
    "unlearning": "gradient-projection",
    "server_epochs": 3,
    "learning_rate": 0.05,
}
"""The same with caches of gradients on both sides."""

SLICED = {**SHORT, "slices": 2, "server_slices": 2, "stable_clients": "1,0,2"}
"""The same with slices on both sides; of three clients, 1 is alone in the server's first."""


def few_digits(path, labels=4, train=24, test=6):
    """Write so many digits of each of the first labels as a data set; return its name."""
    digits = load("digits")

    def some(images, y, count):
        rows = np.concatenate([np.flatnonzero(y == label)[:count] for label in range(labels)])
        return images[rows, 0].astype(np.uint8) * 15, y[rows]

    x_train, y_train = some(digits.x_train, digits.y_train, train)
    x_test, y_test = some(digits.x_test, digits.y_test, test)
    names = np.array([str(label) for label in range(labels)])
    np.savez(
        path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=names
    )
    return f"npz:{path}"


# What a user does, without Flower and Ray.


def learn(path, settings, num_clients=NUM_CLIENTS):
    """Learn, or finish what was begun."""
    return LocalRun(num_clients, state_dir=str(path), **settings)


def ask(path, *forget, drop=False, absent=()):
    """Write requests down; return what there is to do."""
    state = open_state(str(path))
    with state.locked():
        return receive(open_state(str(path)), list(forget), drop, absent=absent)


def unlearn(path, settings, *forget, nodes=None, drop=False, absent=()):
    """Forget, or finish what was begun; None if it was forgotten before.

    `nodes` is how many there are: by default as many as clients ask. Where they are not as many as
    clients, they stand for those that are needed.
    """
    try:
        ask(path, *forget, drop=drop, absent=absent)
    except AlreadyForgottenError:
        return None
    nodes = nodes or len({client for _, client in forget})
    return LocalRun(nodes, state_dir=str(path), **settings)


def certificate(path, settings, nodes=NUM_CLIENTS):
    """Verify a state-dir; return the certificate."""
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    named |= {"state-dir": str(path), "verify": True}
    return verify_state(RunConfig.from_mapping(named), LocalGrid(named, nodes))


# What is on disk.


def tree(path):
    """Every file below a folder, and what it holds."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(Path(path).rglob("*"))
        if file.is_file()
    }


def folders(path):
    """The folders of a state-dir that change all at once, by name."""
    clients = sorted((Path(path) / "clients").glob("*"))
    return {
        "server": StateFolder(Path(path) / "server", "server"),
        **{f"client {one.name}": StateFolder(one, f"client {one.name}") for one in clients},
    }


def pieces(path):
    """What is kept under each name, by folder; every file is read, and known to be whole.

    Not the hashes of forgotten ids: their salt is never the same twice.
    """
    return {
        folder: {name: kept[name] for name in sorted(kept) if name != FORGOTTEN}
        for folder, kept in folders(path).items()
    }


def forgotten(path):
    """The ids of the samples that each client leaves out."""
    state = open_state(str(path))
    _, plan = deal(state.config, state.num_clients)
    return {
        client: ForgottenSamples(TensorStore(state.client(client))).among(ids).tolist()
        for client, ids in enumerate(plan.train)
    }


def digests_noted(path):
    """The digests that result.json gives for the last phase."""
    result = json.loads((Path(path) / "result.json").read_text(encoding="utf-8"))
    return result["phases"][-1]["digests"]


def tasks(path):
    """What the journal says was asked and is done, in order."""
    return [
        (task.text, task.drop, task.measured) for task in tasks_of(open_state(str(path)).journal)
    ]


def outcome(path) -> Mapping[str, object]:
    """All that two state-dirs in which the same was done have in common."""
    return {
        "pieces": pieces(path),
        "forgotten": forgotten(path),
        "digests": digests_noted(path),
        "tasks": tasks(path),
    }


def found(path, patterns):
    """Which of some patterns are in any file, or in the name of one."""
    everything = b"\0".join(name.encode() + b"\0" + held for name, held in tree(path).items())
    return {pattern for pattern in patterns if pattern in everything}


def stopped(where):
    """A process that ends as soon as everything is prepared, or has been committed by clients."""
    stack = ExitStack()
    if where == "prepared":
        stack.enter_context(patch.object(Session, "_commit", side_effect=KeyboardInterrupt))
    else:
        commit = patch.object(KeptState, "commit", autospec=True, side_effect=KeyboardInterrupt)
        stack.enter_context(commit)
    return stack


# What a test compares.


def plan_of(path):
    """The data set and the plan of a state-dir."""
    state = open_state(str(path))
    return deal(state.config, state.num_clients)


def from_scratch(path, settings, gone):
    """The digests that training gives without samples, under the same plan."""
    dataset, plan = plan_of(path)
    kept = tuple(np.setdiff1d(ids, gone) for ids in plan.train)
    with dealt(dataset, Plan(kept, plan.test)):
        return LocalRun(NUM_CLIENTS, **settings).digests


def ids_of(path, client, label):
    """The ids of a client's samples of a label."""
    dataset, plan = plan_of(path)
    ids = plan.train[client]
    return ids[dataset.y_train[ids] == label]


def one_line(error):
    """The text of an error, which is one line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def without_lock(files):
    """Files by name, but for the lock."""
    return {name: held for name, held in files.items() if name != "lock"}
