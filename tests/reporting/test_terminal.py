"""A result's tables."""

import re

import pytest

from split_unlearning.reporting import terminal
from tests.made_up import client, phase, read, result, server


def render(result):
    return terminal.render(read(result))


def rows(text):
    """Return the cells of every line, cut where two or more spaces are."""
    assert all(len(line) <= 110 for line in text.splitlines())
    assert all(line == line.rstrip() for line in text.splitlines())
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.strip()]


def test_the_heading_says_what_was_run():
    text = render(result(phase(), config={"bandwidth-mbps": 12.5}))
    assert rows(text)[0] == ["splitwiper, retrain, on digits (iid, 2 clients, seed 7)"]
    assert "at 12.5 Mbps" in text


def test_accuracy_says_which_labels_clients_are_tested_on():
    made = result(phase())
    assert "is tested on these alone" not in render(made)
    made["distribution"]["train"] = [[1, 0, 0], [0, 2, 3]]
    assert "Each client holds 1 to 2 of 3 labels, and is tested on these alone" in render(made)


def test_accuracy_and_server_cost_of_each_phase():
    text = render(
        result(
            phase(
                unlearned=1.0,
                retained=0.9876,
                server=server(1.2345, 749_800),
            ),
            phase(
                "class:2",
                unlearned=0.0,
                retained=None,
                server=server(70.0, 5_000_000),
            ),
        )
    )
    table = rows(text)
    assert ["phase", "forgotten", "retained", "server trained", "server cache"] in table
    assert ["learn", "100.0 %", "98.8 %", "1.23 s", "749.8 kB"] in table
    assert ["forget class:2", "0.0 %", "-", "70.00 s", "5 MB"] in table


def test_costs_are_means_of_those_who_asked_and_of_the_others():
    text = render(
        result(
            phase(
                "class:2",
                clients=[
                    client(0, bytes_up=10, messages=1, train_seconds=0.5),
                    client(
                        1,
                        requested=True,
                        train_seconds=2.0,
                        bytes_up=2_500_000,
                        bytes_down=321,
                        messages=4,
                        transmission_seconds=0.2001,
                    ),
                    client(2, bytes_up=30, bytes_down=5, messages=2, train_seconds=1.0),
                ],
            )
        )
    )
    table = rows(text)
    asking = ["1 requesting", "2.000 s", "2.5 MB", "321 B", "4", "0.2001 s"]
    assert ["forget class:2", *asking] in table
    # The name of the phase stands once.
    assert ["2 other", "0.750 s", "20 B", "2.5 B", "1.5", "0.0000 s"] in table


def test_without_a_requesting_client_there_is_no_line_for_one():
    text = render(result(phase(clients=[client(0), client(1)])))
    assert "requesting" not in text
    assert ["learn", "2 other", "0.000 s", "0 B", "0 B", "0", "0.0000 s"] in rows(text)


def test_without_others_there_is_no_line_for_them():
    text = render(result(phase("client:0", clients=[client(0, requested=True)])))
    assert "other" not in text
    assert rows(text)[-1][:2] == ["forget client:0", "1 requesting"]


def test_what_is_approximate_is_said_once():
    said = {"approximations": ["half of it was not there", "rounded"]}
    text = render(result(phase(), phase("class:2") | said, phase("class:3") | said))
    assert text.endswith("Approximate or incomplete\n- half of it was not there\n- rounded")
    assert "Approximate" not in render(result(phase(), phase("class:2")))


def test_no_accuracy_is_a_dash_and_not_a_nought():
    text = render(result(phase(unlearned=None, retained=None)))
    assert ["learn", "-", "-", "0.00 s", "0 B"] in rows(text)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.234 kB"),
        (999_000, "999 kB"),
        (12_345_678, "12.35 MB"),
        (7_000_000_000, "7 GB"),
        (123_456_789_012, "123.5 GB"),
    ],
)
def test_sizes_are_in_units_of_1000(size, words):
    text = render(
        result(
            phase(
                clients=[client(0, bytes_up=size)],
                server=server(0.0, size),
            )
        )
    )
    table = rows(text)
    assert ["learn", "50.0 %", "75.0 %", "0.00 s", words] in table
    assert ["learn", "1 other", "0.000 s", words, "0 B", "0", "0.0000 s"] in table


def test_thousands_of_messages_and_of_gigabytes_are_written_out():
    text = render(result(phase(clients=[client(0, messages=12_345, bytes_up=12_345_678_901_234)])))
    assert "e+" not in text


def test_a_long_request_does_not_push_a_number_out():
    costs = {"bytes_up": 123_456_789_012, "bytes_down": 98_765_432, "messages": 1234}
    path = "ids:/" + "very-long-folder/" * 9 + "ids.txt"
    one = phase(
        path,
        server=server(98765.43, 123_400),
        clients=[client(0, True, transmission_seconds=12345.6789, train_seconds=4321.5, **costs)],
    )
    text = render(result(one, config={"dataset": "npz:/" + "x" * 150}))
    for number in (
        "50.0 %",
        "75.0 %",
        "98765.43 s",
        "123.4 kB",
        "123.5 GB",
        "98.77 MB",
        "1234",
        "4321.500 s",
        "12345.6789 s",
    ):
        assert any(number in row for row in rows(text))


@pytest.mark.parametrize("request_", ["class:[red]", "ids:/data/[/]/ids.txt", "class:a:cat:"])
def test_a_request_is_shown_as_it_was_written(request_):
    assert request_ in render(result(phase(request_)))


def test_there_is_no_escape_code_whatever_the_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in render(result(phase(clients=[client(0)])))


@pytest.mark.parametrize("columns", ["40", "300"])
def test_the_width_does_not_follow_the_terminal(monkeypatch, columns):
    one = result(phase("class:2", clients=[client(0, requested=True), client(1)]))
    expected = render(one)
    monkeypatch.setenv("COLUMNS", columns)
    assert render(one) == expected
