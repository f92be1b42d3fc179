"""What the suite runs: each strategy, in each of its forms, with each method that it admits.

A short run deals a few digits to a few clients, and answers every kind of request in a row: for
each distribution. A long run learns the whole data set, with labels dealt out without overlap, and
forgets one of them.

By default the suite runs a selection of these; `-m slow` runs the rest.
"""

import ast
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import product
from threading import RLock
from unittest.mock import patch

import numpy as np

from split_unlearning.clients.base import load_client
from split_unlearning.foundations.errors import refuse
from split_unlearning.foundations.registry import load_object
from split_unlearning.simulations.data.loading import load
from split_unlearning.strategies.base import SplitStrategy
from split_unlearning.strategies.registry import STRATEGIES
from split_unlearning.strategies.server.link import ServerLink
from split_unlearning.unlearning.methods import METHODS, NoUnlearning, UnlearningMethod
from tests.dealing import BY_LABEL
from tests.local_grid import LocalRun

# Keys that make another protocol of a strategy that uses them: each value is a form of its own.
FORMS = {
    "client-sync": {"none": "", "handoff": "-handoff"},
    "splitfed-version": {1: "-1", 2: "-2"},
}

# The kinds of request, in an order in which each still finds samples; after the second, one of the
# clients has none left.
REQUESTS = ("ids:{folder}/ids.txt", "client:1", "class:2", "samples:0.5@class:3")

SHORT = {
    "dataset": "npz:{folder}/digits.npz",
    "forget": ";".join(REQUESTS),
    "pretrain-epochs": 1,
    "batch-size": 32,
    "learning-rate": 0.05,
    "momentum": 0.5,
    "bandwidth-mbps": 8.0,
    "latency-ms": 20.0,
    # Less than what a client uploads.
    "upload-chunk-mb": 0.02,
}

# The distribution of the short runs that are repeated. They are longer by an epoch, for what is
# carried from one to the next, and have a client more, for the order of two and an average without
# the third.
REPEATED = "partial-overlap"

# Labels that everybody holds, forgotten by all of them at once: the second in part.
EVERYBODY = "everybody"
OF_EVERYBODY = {
    "distribution": "iid",
    "forget": "class:2;samples:0.5@class:3",
    "forget-client": "all",
}

LONG = {
    "distribution": "heterogeneous-labels",
    "forget": "class:2",
    "pretrain-epochs": 5,
    "server-epochs": 12,
    "batch-size": 48,
    "learning-rate": 0.1,
}

# Where one segment sees one client's labels after the other's, or an average of those that did, it
# takes more and smaller steps to learn them all.
LARGE_BATCHES = {"server-epochs": 22, "batch-size": 512, "learning-rate": 0.04, "momentum": 0.9}
LONG_BY_FORM = {
    "-handoff": LARGE_BATCHES,
    "-1": {"server-epochs": 10, "batch-size": 24, "learning-rate": 0.15},
    "-2": LARGE_BATCHES,
}

# In few and large steps more of them are needed to make good what a projection takes along.
LONG_AFTER_PROJECTION = {"fine-tune-share": 0.3}

EPOCHS_OF_METHODS = {"fine-tune-epochs", "ascent-epochs", "distillation-epochs"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of the suite."""

    name: str
    form: str
    strategy: type[SplitStrategy]
    method: type[UnlearningMethod]
    clients: int
    settings: dict
    learns: bool = False

    @property
    def of_everybody(self):
        """Whether all clients ask at once."""
        return self.name.endswith(EVERYBODY)


class CellRun(LocalRun):
    """A run of a cell; counts the frames that the server segment answers, apart from the ledger."""

    def __init__(self, cell, folder, in_flight=1):
        self.cell = cell
        self.exchanges = {phase: Counter() for phase in ("learn", "unlearn", "evaluate")}
        answer = ServerLink.answer

        def counted(link, caller, tensors, fields):
            reply = answer(link, caller, tensors, fields)
            self.exchanges[caller.phase][caller.client] += 1
            return reply

        settings = {
            key: value.format(folder=folder) if isinstance(value, str) else value
            for key, value in cell.settings.items()
        }
        # Before 3.11.8, CPython mixes up threads that parse at the same time (gh-106905), as numpy
        # does to read an array.
        parse, turn = ast.parse, RLock()

        def one_at_a_time(*arguments, **named):
            with turn:
                return parse(*arguments, **named)

        with (
            patch.object(ServerLink, "answer", counted),
            patch.object(ast, "parse", one_at_a_time),
        ):
            super().__init__(cell.clients, in_flight, **settings)

    @property
    def digests_by_phase(self):
        return [phase["digests"] for phase in self.phases]


def short_cell(strategy, method, distribution=REPEATED, form=""):
    epochs, clients = (2, 3) if distribution == REPEATED else (1, 2)
    settings = {**SHORT, **_epochs(method, 1), "server-epochs": epochs}
    settings["distribution"] = distribution
    return _cell(strategy, method, form, distribution, clients, settings)


def everybodys_cell(strategy, method, form=""):
    settings = {**SHORT, **_epochs(method, 1), "server-epochs": 1, **OF_EVERYBODY}
    return _cell(strategy, method, form, EVERYBODY, 3, settings)


def long_cell(strategy, method, form=""):
    settings = {**LONG, **LONG_BY_FORM.get(form, {}), **_epochs(method, 2)}
    if form == "-handoff" and LONG_AFTER_PROJECTION.keys() <= METHODS.get(method).reads().keys():
        settings |= LONG_AFTER_PROJECTION
    return _cell(strategy, method, form, "learning", 5, settings, learns=True)


def _cell(strategy, method, form, what, clients, settings, learns=False):
    kind = STRATEGIES.get(strategy)
    form_name = f"{_short(strategy)}{form}"
    name = f"{form_name}/{_short(method)}/{what}"
    settings = {**settings, **_forms(kind)[form], "strategy": strategy, "unlearning": method}
    return Cell(name, form_name, kind, METHODS.get(method), clients, settings, learns)


def _epochs(method, epochs):
    return dict.fromkeys(METHODS.get(method).reads().keys() & EPOCHS_OF_METHODS, epochs)


def _short(name):
    return name.rpartition(":")[2]


def _forms(strategy):
    """Return the forms of a strategy: the end of a name, and the settings that it stands for."""
    forms = {"": {}}
    for key in FORMS.keys() & strategy.reads().keys():
        forms = {
            end + more: {**settings, key: value}
            for end, settings in forms.items()
            for value, more in FORMS[key].items()
        }
    return forms


@cache
def cells_of(plugin=None):
    """Return every cell, or those of a stranger's class, by its dotted path.

    Raises
    ------
    UserError
        If the class is neither a strategy nor an unlearning method, or goes with none of those
        that are registered.
    """
    strategies, methods = STRATEGIES.names(), METHODS.names()
    if plugin:
        kind = load_object("--plugin", plugin)
        if isinstance(kind, type) and issubclass(kind, SplitStrategy):
            strategies = [plugin]
            load_client(STRATEGIES.get(plugin).client)
        elif isinstance(kind, type) and issubclass(kind, UnlearningMethod):
            methods = [plugin]
        else:
            raise refuse("--plugin", plugin, "a subclass of SplitStrategy or of UnlearningMethod")
    cells = []
    for strategy, method in product(strategies, methods):
        if not issubclass(METHODS.get(method), STRATEGIES.get(strategy).methods):
            continue
        for form in _forms(STRATEGIES.get(strategy)):
            cells += [short_cell(strategy, method, dealt, form) for dealt in BY_LABEL]
            cells.append(everybodys_cell(strategy, method, form))
            # Learning is the same whatever the method, and this one does nothing after it.
            if not issubclass(METHODS.get(method), NoUnlearning):
                cells.append(long_cell(strategy, method, form))
    if not cells:
        allowed = f"one that goes with {', '.join(methods if plugin in strategies else strategies)}"
        raise refuse("--plugin", plugin, allowed)
    return cells


def selection(cells):
    """Return a few cells that stand for all.

    Each form of a strategy meets each method in one short run. The distributions take turns there
    like the symbols of a Latin square, so that each meets all forms and methods that go with as
    many others as there are distributions. Each form of a strategy has one long run, and one in
    which everybody forgets, with another method than the form before.
    """
    forms = _places(cell.form for cell in cells)
    methods = _places(cell.method for cell in cells)
    distributions = _places(BY_LABEL)
    once = {}
    for cell in cells:
        if cell.learns or cell.of_everybody:
            once.setdefault((cell.form, cell.learns), []).append(cell)
    chosen = [some[forms[form] % len(some)] for (form, _), some in once.items()]
    for cell in cells:
        turn = (forms[cell.form] + methods[cell.method]) % len(distributions)
        if (
            not (cell.learns or cell.of_everybody)
            and distributions[cell.settings["distribution"]] == turn
        ):
            chosen.append(cell)
    return chosen


def _places(values):
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def write_files(folder):
    """Write what the short runs read: a few digits of each label, and the ids of some of them."""
    digits = load("digits")
    arrays = {"class_names": np.array(digits.class_names)}
    for split, each in (("train", 16), ("test", 8)):
        images, labels = getattr(digits, f"x_{split}"), getattr(digits, f"y_{split}")
        some = np.sort(np.concatenate([np.flatnonzero(labels == n)[:each] for n in range(10)]))
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images[some, 0] * 15, labels[some]
    np.savez(folder / "digits.npz", **arrays)
    (folder / "ids.txt").write_text("\n".join(map(str, range(0, 160, 15))))
