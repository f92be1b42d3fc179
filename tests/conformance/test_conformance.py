"""What every strategy has to keep with every unlearning method that it admits.

``pytest tests/conformance --plugin package.module:Class`` puts a strategy or a method of another
package through the same.
"""

import json
from collections import Counter

import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.reporting.result import Result
from split_unlearning.reporting.terminal import render
from split_unlearning.simulations.config import RunConfig
from split_unlearning.strategies.splitwiper import SplitWiper
from split_unlearning.strategies.splitwiper_plus import SplitWiperPlus
from split_unlearning.strategies.vanilla import Vanilla
from split_unlearning.unlearning.exactness import digest
from split_unlearning.unlearning.methods import NoUnlearning, Retrain
from tests.conformance.cells import REPEATED, CellRun
from tests.protocol.test_splitwiper import trained_without_what

pytestmark = pytest.mark.conformance

# Ten labels: who guesses is right once in ten times.
CHANCE = 0.1
LEARNS_BY = 0.5
KEEPS_WITHIN = 0.15


def only(wanted):
    """Run a test on some of the cells."""

    def mark(test):
        test.wanted = wanted
        return test

    return mark


def traffic(run):
    """Yield every account of the result."""
    yield from run.result["setup"]["clients"]
    for phase in run.phases:
        for client in phase["clients"]:
            yield client
            yield client["evaluation"]


# On every run.


def test_a_phase_for_learning_and_one_for_each_request(run):
    forgettings = run.prepared.forgettings
    assert len(forgettings) == len(run.cell.settings["forget"].split(";"))
    assert [phase["phase"] for phase in run.phases] == ["learn"] + ["unlearn"] * len(forgettings)
    requests = [None, *(forgetting.request.text for forgetting in forgettings)]
    assert [phase["request"] for phase in run.phases] == requests
    assert all(phase["absent"] == [] for phase in run.phases)


def test_the_samples_left_out_are_those_of_the_plan(run):
    forgettings = run.prepared.forgettings
    meant = [sum(len(ids) for ids in one.samples.values()) for one in forgettings]
    assert [phase["samples"] for phase in run.phases] == [0, *meant]
    assert min(meant) > 0


def test_who_holds_how_much_is_what_the_plan_deals_out(run):
    plan, dataset = run.prepared.plan, run.prepared.dataset
    said = run.result["distribution"]
    assert said["labels"] == list(dataset.class_names)
    for counts, ids in zip(said["train"], plan.train, strict=True):
        labels = Counter(dataset.y_train[ids].tolist())
        assert counts == [labels[label] for label in range(len(said["labels"]))]


def test_those_who_are_asked_to_forget_are_said_to_be(run):
    asking = [set(forgetting.samples) for forgetting in run.prepared.forgettings]
    for phase, clients in zip(run.phases, [set().union(*asking), *asking], strict=True):
        assert [client["client"] for client in phase["clients"]] == list(range(run.cell.clients))
        assert {one["client"] for one in phase["clients"] if one["requested"]} == clients


def test_the_result_fits_its_schema_before_and_after_it_is_written(run):
    try:
        read = Result.model_validate_json(json.dumps(run.result, allow_nan=False))
        repeated = RunConfig.from_mapping(read.config)
    except (UserError, ValueError) as error:
        raise AssertionError(str(error)) from error
    assert read.to_dict() == run.result
    assert repeated.as_mapping() == run.result["config"]


def test_the_tables_name_every_request(run):
    tables = render(Result.model_validate_json(json.dumps(run.result)))
    assert all(forgetting.request.text in tables for forgetting in run.prepared.forgettings)


def test_every_digest_is_that_of_the_weights_there_are(run):
    assert run.digests["server"] == digest(run.server_state)
    kept = {str(client): digest(run.client_state(client)) for client in range(run.cell.clients)}
    assert run.digests["clients"] == kept


def test_the_messages_are_the_instructions_and_the_exchanges_of_the_link(run):
    counted = {phase: Counter() for phase in run.exchanges}
    for phase in run.phases:
        for client in phase["clients"]:
            counted[phase["phase"]][client["client"]] += client["messages"]
            counted["evaluate"][client["client"]] += client["evaluation"]["messages"]
    for phase, exchanges in run.exchanges.items():
        instructions = Counter(client for client, _ in run.instructions(phase))
        assert counted[phase] == instructions + exchanges


def test_what_is_sent_has_a_size_and_what_has_a_size_is_sent(run):
    for account in traffic(run):
        sizes = account["bytes_up"], account["bytes_down"]
        assert min(sizes) >= 0
        assert (min(sizes) > 0) == (max(sizes) > 0) == (account["messages"] > 0)


def test_seconds_on_the_wire_follow_from_the_bytes(run):
    config = run.result["config"]
    for account in traffic(run):
        waits = account["messages"] * config["latency-ms"] / 1000
        for key, size in (
            ("transmission_seconds", account["bytes_up"] + account["bytes_down"]),
            ("transmission_seconds_up", account["bytes_up"]),
        ):
            seconds = size * 8 / (config["bandwidth-mbps"] * 1e6) + waits
            assert account[key] == pytest.approx(seconds)


def test_seconds_of_computing_are_not_negative_and_are_there_where_somebody_worked(run):
    for phase in run.phases:
        for client in phase["clients"]:
            assert (client["train_seconds"] > 0) == (client["messages"] > 0)
            assert 0 <= client["pretrain_seconds"] <= client["train_seconds"]
        assert phase["server"]["train_seconds"] >= 0
        assert phase["timing"]["link"]["seconds"] >= 0
        assert all(asked["seconds"] > 0 for asked in phase["timing"]["questions"].values())


def test_meeting_the_clients_costs_one_message_each(run):
    setup = run.result["setup"]["clients"]
    assert [account["client"] for account in setup] == list(range(run.cell.clients))
    assert all(account["messages"] == 1 for account in setup)
    assert all(min(account["bytes_up"], account["bytes_down"]) > 0 for account in setup)


@only(lambda cell: issubclass(cell.strategy, SplitWiper))
def test_splitwiper_leaves_the_others_alone(run):
    for before, after in zip(run.phases, run.phases[1:], strict=False):
        for client in after["clients"]:
            if not client["requested"]:
                who = str(client["client"])
                assert (client["messages"], client["bytes_up"], client["bytes_down"]) == (0, 0, 0)
                assert after["digests"]["clients"][who] == before["digests"]["clients"][who]


@only(lambda cell: issubclass(cell.method, NoUnlearning))
def test_no_unlearning_changes_nothing(run):
    first, *others = run.phases
    for phase in others:
        assert phase["digests"] == first["digests"]
        for over in ("per_label", "per_client", "retained"):
            assert phase["accuracy"][over] == first["accuracy"][over]


@only(lambda cell: cell.of_everybody)
def test_what_everybody_forgets_is_measured_on_everybodys_test_samples(run):
    assert [sorted(one.samples) for one in run.prepared.forgettings] == [[0, 1, 2]] * 2
    for phase, label in zip(run.phases[1:], ("2", "3"), strict=True):
        accuracy = phase["accuracy"]
        assert accuracy["unlearned"] is not None
        if accuracy["per_label"][label] is not None:
            assert accuracy["unlearned"] == accuracy["per_label"][label]


# On one short run of each strategy with each method.


@only(lambda cell: cell.name.endswith(REPEATED))
def test_the_number_of_clients_in_flight_changes_no_digest(run, folder):
    again = CellRun(run.cell, folder, in_flight=run.cell.clients)
    assert again.digests_by_phase == run.digests_by_phase


@only(
    lambda cell: (
        not cell.learns
        and issubclass(cell.method, Retrain)
        and issubclass(cell.strategy, (SplitWiper, Vanilla))
    )
)
def test_retraining_gives_what_training_without_the_samples_gives(run):
    kept, reference = run.digests, trained_without_what(run).digests
    assert kept["clients"] == reference["clients"]
    # The server's also follow from the map of labels and the number of an upload, which are part of
    # the plan there: `verify` keeps to it.
    if not issubclass(run.cell.strategy, SplitWiperPlus):
        assert kept["server"] == reference["server"]


# On the long runs.


@only(lambda cell: cell.learns)
def test_learns_above_chance(run):
    learned = run.phases[0]["accuracy"]
    assert learned["retained"] >= CHANCE + LEARNS_BY
    assert learned["unlearned"] > 0.5


@only(lambda cell: cell.learns)
def test_forgets(run):
    before, after = (phase["accuracy"]["unlearned"] for phase in run.phases)
    if issubclass(run.cell.method, Retrain):
        assert after == 0.0
    else:
        assert after <= before


@only(lambda cell: cell.learns)
def test_keeps_what_nobody_asked_to_forget(run):
    before, after = (phase["accuracy"]["retained"] for phase in run.phases)
    assert after >= before - KEEPS_WITHIN
