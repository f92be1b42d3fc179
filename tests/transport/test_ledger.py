"""The ledger adds up, by client and phase, whoever records and wherever it lives."""

import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.transport.ledger import PHASES, Account, Ledger, NetworkSpeed

amounts = st.integers(0, 10**12)
records = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(PHASES), amounts, amounts, st.integers(0, 9)),
    max_size=20,
)


def written(entries):
    ledger = Ledger()
    for client, phase, up, down, messages in entries:
        ledger.record(client, phase, up=up, down=down, messages=messages)
    return ledger


def contents(ledger):
    return sorted(ledger.rows(), key=lambda row: row[:2])


def test_phases_are_the_four():
    assert PHASES == ("setup", "learn", "unlearn", "evaluate", "models")


def test_accounts_add_field_by_field():
    assert Account(1, 2, 3, 4.0, 5.0) + Account(10, 20, 30, 40.0, 50.0) == Account(
        11, 22, 33, 44.0, 55.0
    )


def test_nothing_recorded_is_all_zeros():
    ledger = Ledger()
    assert ledger.account(3, "learn") == Account(0, 0, 0, 0.0, 0.0)
    assert ledger.clients("learn") == []
    assert ledger.rows() == ledger.take() == []


def test_records_add_up_by_client_and_phase():
    ledger = Ledger()
    ledger.record(1, "learn", up=10, messages=1, client_seconds=0.5)
    ledger.record(1, "learn", up=5, down=7, messages=1, server_seconds=0.25)
    ledger.record(1, "unlearn", down=1)
    ledger.record(0, "learn", up=2)
    assert ledger.account(1, "learn") == Account(15, 7, 2, 0.5, 0.25)
    assert ledger.account(1, "unlearn") == Account(bytes_down=1)
    assert ledger.clients("learn") == [0, 1]
    assert ledger.clients("unlearn") == [1]


def test_a_client_that_cost_nothing_is_not_listed():
    ledger = Ledger()
    ledger.record(1, "unlearn")
    assert ledger.clients("unlearn") == []
    assert ledger.rows() == []


@pytest.mark.parametrize("phase", ["", "Learn", "train"])
def test_unknown_phase_is_refused_everywhere(phase):
    ledger = Ledger()
    for use in (
        lambda: ledger.record(0, phase, up=1),
        lambda: ledger.account(0, phase),
        lambda: ledger.clients(phase),
        lambda: ledger.merge([(0, "learn", Account(1)), (0, phase, Account(1))]),
    ):
        with pytest.raises(ValueError, match="unknown phase"):
            use()
    assert ledger.rows() == []


@pytest.mark.parametrize("name", ["up", "down", "messages", "client_seconds", "server_seconds"])
def test_negative_amounts_are_refused(name):
    with pytest.raises(ValueError, match="negative"):
        Ledger().record(0, "learn", **{name: -1})


@given(records, records)
def test_merging_a_ledger_or_its_pickled_rows_equals_recording_it_all(here, elsewhere):
    everything = contents(written(here + elsewhere))
    by_ledger, by_rows, other = written(here), written(here), written(elsewhere)
    by_ledger.merge(other)
    assert contents(by_ledger) == everything
    by_rows.merge(pickle.loads(pickle.dumps(other.take())))
    assert contents(by_rows) == everything
    assert other.rows() == []


def test_taking_while_others_record_loses_and_doubles_nothing():
    ledger, total = Ledger(), Ledger()

    def record():
        for _ in range(500):
            ledger.record(0, "learn", up=3, messages=1)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        total.merge(ledger.take())
    for thread in threads:
        thread.join()
    total.merge(ledger)
    assert total.account(0, "learn") == Account(bytes_up=6000, messages=2000)


def test_transmission_is_bits_over_bandwidth_plus_a_round_trip_a_message():
    assert NetworkSpeed().seconds(12_500_000, 7) == 1.0
    assert NetworkSpeed(bandwidth_mbps=8.0, latency_ms=50.0).seconds(1_000_000, 10) == 1.5
    assert NetworkSpeed(latency_ms=50.0).seconds(0, 0) == 0.0
