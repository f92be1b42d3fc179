"""The suite finds what is wrong: in results, in strategies, in methods, in how it is called."""

import copy
import dataclasses
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from split_unlearning.clients.acting import action
from split_unlearning.clients.splitwiper import SplitWiperClient
from split_unlearning.clients.vanilla import VanillaClient
from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.config import fitting
from split_unlearning.strategies.registry import STRATEGIES
from split_unlearning.strategies.server.model import ServerModel
from split_unlearning.strategies.splitwiper import SplitWiper
from split_unlearning.strategies.vanilla import Vanilla
from split_unlearning.unlearning.methods import METHODS, NoUnlearning, StagedMethod
from split_unlearning.unlearning.objectives import BoundedAscent
from split_unlearning.unlearning.stages import Stage
from tests.conformance import test_conformance as suite
from tests.conformance.cells import (
    REPEATED,
    CellRun,
    cells_of,
    long_cell,
    selection,
    short_cell,
)
from tests.dealing import BY_LABEL

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]


def mine(name):
    return f"{__name__}:{name}"


def finds(test, *arguments):
    with pytest.raises(AssertionError):
        test(*arguments)


# Results.


@pytest.fixture(scope="module")
def good(folder):
    return CellRun(short_cell("splitwiper", "retrain"), folder)


NO_DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("a_phase_for_learning_and_one_for_each_request", "phases 1 request", "class:9"),
        ("a_phase_for_learning_and_one_for_each_request", "phases 1 absent", ["client 0"]),
        ("the_samples_left_out_are_those_of_the_plan", "phases 2 samples", 1),
        ("those_who_are_asked_to_forget_are_said_to_be", "phases 2 clients 0 requested", True),
        ("those_who_are_asked_to_forget_are_said_to_be", "phases 0 clients 1 requested", False),
        ("the_result_fits_its_schema_before_and_after_it_is_written", "phases 0 more", 1),
        ("the_result_fits_its_schema_before_and_after_it_is_written", "config seed", -1),
        ("the_result_fits_its_schema_before_and_after_it_is_written", "clients", "3"),
        ("the_tables_name_every_request", "phases 3 request", "class:9"),
        ("every_digest_is_that_of_the_weights_there_are", "phases -1 digests server", NO_DIGEST),
        ("every_digest_is_that_of_the_weights_there_are", "phases -1 digests clients 2", NO_DIGEST),
        (
            "the_messages_are_the_instructions_and_the_exchanges_of_the_link",
            "phases 0 clients 1 messages",
            7,
        ),
        (
            "the_messages_are_the_instructions_and_the_exchanges_of_the_link",
            "phases 2 clients 1 evaluation messages",
            7,
        ),
        ("what_is_sent_has_a_size_and_what_has_a_size_is_sent", "phases 0 clients 0 bytes_up", 0),
        ("seconds_on_the_wire_follow_from_the_bytes", "phases 0 clients 0 bytes_down", 10**6),
        (
            "seconds_of_computing_are_not_negative_and_are_there_where_somebody_worked",
            "phases 0 server train_seconds",
            -1.0,
        ),
        (
            "seconds_of_computing_are_not_negative_and_are_there_where_somebody_worked",
            "phases 2 clients 0 train_seconds",
            0.1,
        ),
        ("meeting_the_clients_costs_one_message_each", "setup clients 0 messages", 2),
        ("splitwiper_leaves_the_others_alone", "phases 2 clients 2 bytes_up", 1),
        ("splitwiper_leaves_the_others_alone", "phases 2 digests clients 2", NO_DIGEST),
    ],
)
def test_a_wrong_entry_of_the_result_is_found(good, name, place, value):
    test = getattr(suite, f"test_{name}")
    test(good)
    *path, last = [int(word) if word.lstrip("-").isdigit() else word for word in place.split()]
    if path[-2:] == ["digests", "clients"]:
        last = str(last)
    run = copy.copy(good)
    run.result = copy.deepcopy(good.result)
    entry = run.result
    for key in path:
        entry = entry[key]
    assert entry.get(last) != value
    entry[last] = value
    finds(test, run)


# Strategies and clients.


class Idle(SplitWiper):
    """Leaves the samples out, and trains nothing again."""

    def unlearn(self, requests):
        yield self.ask_to_forget(requests, "leave-out")


def test_a_strategy_that_only_says_that_it_forgot_is_found(folder):
    finds(
        suite.test_retraining_gives_what_training_without_the_samples_gives,
        CellRun(short_cell(mine("Idle"), "retrain"), folder),
    )
    finds(suite.test_forgets, CellRun(long_cell(mine("Idle"), "retrain"), folder))


class Keeping(Vanilla):
    client = mine("KeepingClient")


class KeepingClient(VanillaClient):
    """Says how many samples it left out, and goes on using them."""

    @action
    def leave_out(self, message):
        answer = super().leave_out(message)
        self.state.forget("forgotten")
        return answer


def test_a_client_that_retrains_on_the_forgotten_samples_is_found(folder):
    cell = short_cell(mine("Keeping"), "retrain")
    # What is forgotten anew with each request would not add up to what the plan says.
    one_request = dataclasses.replace(cell, settings={**cell.settings, "forget": "class:2"})
    finds(
        suite.test_retraining_gives_what_training_without_the_samples_gives,
        CellRun(one_request, folder),
    )
    finds(suite.test_forgets, CellRun(long_cell(mine("Keeping"), "retrain"), folder))


class Nosy(SplitWiper):
    """Has everybody upload again."""

    def unlearn(self, requests):
        yield from super().unlearn(requests)
        yield from self.collect(self.ask(self.clients, "upload", upload="test", chunk=0))


def test_a_strategy_that_bothers_the_others_is_found(folder):
    run = CellRun(short_cell(mine("Nosy"), "retrain"), folder)
    finds(suite.test_splitwiper_leaves_the_others_alone, run)


class Mistaken(SplitWiper):
    client = mine("MistakenClient")


class MistakenClient(SplitWiperClient):
    """Keeps other weights than it says."""

    def keep_weights(self, weights):
        super().keep_weights(weights)
        self.state.save("segment", {name: value + 1 for name, value in weights.items()})


def test_a_digest_of_other_weights_is_found(folder):
    run = CellRun(short_cell(mine("Mistaken"), "retrain"), folder)
    finds(suite.test_every_digest_is_that_of_the_weights_there_are, run)


class Unseeded(SplitWiper):
    client = mine("UnseededClient")


class UnseededClient(SplitWiperClient):
    """Starts from weights that are drawn anew each time."""

    def fresh_segment(self, owner=None):
        segment = super().fresh_segment(owner)
        with torch.no_grad():
            next(segment.parameters()).add_(np.random.default_rng().normal())
        return segment


def test_a_draw_without_a_seed_is_found(folder):
    run = CellRun(short_cell(mine("Unseeded"), "retrain"), folder)
    finds(suite.test_the_number_of_clients_in_flight_changes_no_digest, run, folder)


class Lazy(Vanilla):
    """Has every client begin, and trains nobody."""

    def learn(self):
        yield from self.start()
        self.server.call(ServerModel.initialise)


def test_a_strategy_that_learns_nothing_is_found(folder):
    finds(suite.test_learns_above_chance, CellRun(long_cell(mine("Lazy"), "fine-tune"), folder))


# Methods.


class Wrecking(StagedMethod):
    """Unlearns what is to be retained."""

    def stages(self):
        return (Stage("wreck", 3, "retained", BoundedAscent(1.0)),)


def test_a_method_that_loses_what_it_has_to_keep_is_found(folder):
    run = CellRun(long_cell("vanilla", mine("Wrecking")), folder)
    finds(suite.test_keeps_what_nobody_asked_to_forget, run)


class Restless(NoUnlearning):
    """Trains on, where nothing is to change."""

    def stages(self):
        return (Stage("restless", 1),)


def test_a_method_that_does_not_leave_things_as_they_are_is_found(folder):
    run = CellRun(short_cell("vanilla", mine("Restless")), folder)
    finds(suite.test_no_unlearning_changes_nothing, run)


class Reminding(StagedMethod):
    """Goes over what is to be forgotten, once more."""

    def stages(self):
        return (Stage("remind", 1, "forgotten"),)


def test_a_method_after_which_more_is_known_is_found(folder):
    cell = long_cell("vanilla", mine("Reminding"))
    barely = dataclasses.replace(cell, settings={**cell.settings, "server-epochs": 1, "seed": 1})
    finds(suite.test_forgets, CellRun(barely, folder))


# Which cells there are.


def test_every_strategy_meets_every_method_that_it_admits():
    names = {cell.name for cell in cells_of()}
    forms = ["splitfed-1", "splitfed-2", "splitwiper"]
    forms += ["u-shaped", "u-shaped-handoff", "vanilla", "vanilla-handoff"]
    methods = ["distillation", "fine-tune", "gradient-ascent", "none", "retrain"]
    wanted = {"/".join(one) for one in product(forms, methods, [*BY_LABEL, "learning"])}
    assert wanted - names == {f"{form}/none/learning" for form in forms}
    assert {cell.strategy for cell in cells_of()} == set(map(STRATEGIES.get, STRATEGIES.names()))
    assert {cell.method for cell in cells_of()} == set(map(METHODS.get, METHODS.names()))


def test_what_is_run_by_default_leaves_out_no_form_method_or_distribution():
    cells, chosen = cells_of(), selection(cells_of())
    assert len(chosen) < len(cells) / 3

    def met(cells, *choices):
        return {tuple(getattr(cell, one) for one in choices) for cell in cells}

    learning, answering = (
        [one for one in chosen if one.learns is learns] for learns in (True, False)
    )
    assert met(answering, "form", "method") == met(cells, "form", "method")
    assert met(learning, "form") == met(cells, "form")
    assert len(met(learning, "method")) >= 5
    assert {cell.settings["distribution"] for cell in answering} == set(BY_LABEL)
    # The tests of one kind of run alone have such a run.
    assert sum(cell.name.endswith(REPEATED) for cell in answering) >= len(STRATEGIES.names())


def test_a_strangers_class_meets_what_is_registered_and_nothing_else():
    strategy = {cell.name for cell in cells_of(mine("Nosy"))}
    assert {name.partition("/")[0] for name in strategy} == {"Nosy"}
    assert {name.split("/")[1] for name in strategy} == set(fitting("splitwiper"))
    method = {cell.name for cell in cells_of(mine("Wrecking"))}
    assert {name.split("/")[1] for name in method} == {"Wrecking"}
    assert {"vanilla-handoff/Wrecking/iid", "splitwiper/Wrecking/learning"} <= method


class Faceless(SplitWiper):
    client = "nowhere:Nobody"


class Choosy(SplitWiper):
    methods = ()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere:Nothing", "does not import"),
        ("splitwiper", "does not import"),
        ("pathlib:Path", "SplitStrategy or"),
        ("split_unlearning.strategies.base:SplitStrategy", "does not define learn, unlearn"),
        ("split_unlearning.unlearning.methods:StagedMethod", "does not define stages"),
        (
            "split_unlearning.unlearning.methods:UnlearningMethod",
            "goes with gradient-projection, splitfed",
        ),
        (mine("Faceless"), "nowhere:Nobody"),
        (mine("Choosy"), "goes with distillation, fine-tune"),
    ],
)
def test_what_cannot_be_put_through_the_suite_is_refused_in_one_line(path, reason):
    with pytest.raises(UserError) as refusal:
        cells_of(path)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


# How it is called.


def call(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-p", "no:cacheprovider"]
    # More processes than this one would spend longer on their imports than on the tests.
    command += ["-n", "0"]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_a_strangers_class_is_put_through_the_suite_by_dotted_path(tmp_path):
    (tmp_path / "stranger.py").write_text(
        "from split_unlearning import SplitWiper\n\n\nclass Good(SplitWiper):\n    pass\n"
    )
    called = call(tmp_path, "--plugin", "stranger:Good", "-vv", "-k", "retrain/partial-overlap")
    assert called.returncode == 0, called.stdout
    ran = [line for line in called.stdout.splitlines() if "PASSED" in line]
    assert len(ran) > 10
    assert all("[Good/retrain/partial-overlap]" in line for line in ran)
    assert "itself" not in called.stdout


def test_a_path_that_does_not_import_ends_pytest_with_one_line(tmp_path):
    called = call(tmp_path, "--plugin", "stranger:Good")
    assert called.returncode == 4
    (line,) = [line for line in (called.stdout + called.stderr).splitlines() if line]
    assert line.startswith("ERROR: --plugin='stranger:Good' does not import")
