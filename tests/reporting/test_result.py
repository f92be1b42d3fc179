"""The form of a result: what is read is what was written, and what is wrong is named."""

import json
import subprocess
import sys
from copy import deepcopy

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from split_unlearning.reporting.result import Result, schema
from tests.local_grid import LocalRun
from tests.made_up import client, phase, read, result, server, traffic

shares = st.none() | st.floats(0, 1)
counts = st.integers(0, 10**15)
seconds = st.floats(0, 1e9)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
traffics = st.fixed_dictionaries(
    {
        "bytes_up": counts,
        "bytes_down": counts,
        "messages": counts,
        "transmission_seconds": seconds,
        "transmission_seconds_up": seconds,
    }
)


@st.composite
def phases(draw, forgets=True):
    clients = [
        client(
            number,
            draw(st.booleans()),
            train_seconds=draw(seconds),
            pretrain_seconds=draw(seconds),
            **draw(traffics),
            evaluation=draw(traffics),
        )
        for number in draw(st.sets(st.integers(0, 2000), min_size=1, max_size=3))
    ]
    attacks = st.fixed_dictionaries(
        {"name": texts, "clusters": counts, "inclusive": shares, "perfect": shares}
    )
    optional = {
        "privacy": st.none()
        | st.fixed_dictionaries(
            {
                "mechanism": texts,
                "unit": texts,
                "epsilon_per_release": st.floats(0, exclude_min=True, allow_infinity=False),
                "delta_per_release": st.floats(0, 1, exclude_max=True),
                "releases": counts,
                "epsilon": seconds,
                "delta": st.floats(0, 1),
                "pure_epsilon": st.none() | seconds,
                "uploads": st.dictionaries(counts.map(str), counts),
                "covers": st.lists(texts, min_size=1, max_size=2),
                "does_not_cover": st.lists(texts, max_size=2),
                "of_its_own": st.floats(0, 1) | texts,
            }
        ),
        "label_matching": st.none()
        | st.fixed_dictionaries(
            {
                "attacks": st.lists(attacks, min_size=1, max_size=2),
                "strongest": texts,
                "vanished_are_one_label": st.none() | st.booleans(),
            }
        ),
        "relearn": st.none()
        | st.fixed_dictionaries(
            {"epochs": st.none() | counts, "most": counts, "accuracy": st.floats(0, 1)}
        ),
        "absent": st.lists(texts, max_size=2),
    }
    of_epoch = {"epoch": st.integers(1, 99), "unlearned": shares, "retained": shares}
    made = phase(
        draw(texts) if forgets else None,
        draw(shares),
        draw(shares),
        clients,
        **{key: draw(values) for key, values in optional.items()},
    )
    # Written by a version that did not measure it.
    if draw(st.booleans()):
        del made["relearn"]
    made["by_epoch"] = draw(st.lists(st.fixed_dictionaries(of_epoch), max_size=2))
    return made


@st.composite
def results(draw):
    config = st.dictionaries(texts, st.booleans() | st.integers() | seconds | texts)
    learned = draw(phases(forgets=False))
    made = result(
        learned,
        *draw(st.lists(phases(), max_size=2)),
        config=draw(config),
    )
    if draw(st.booleans()):
        del made["distribution"]
    return made


@given(results())
def test_what_is_read_is_what_was_written(written):
    found = read(written)
    assert found.to_dict() == written
    assert json.loads(found.to_json()) == written
    assert read(found.to_dict()) == found
    assert Draft202012Validator(schema()).is_valid(written)


def test_a_run_writes_this_form_and_to_the_letter(tmp_path):
    run = LocalRun(2, pretrain_epochs=1, server_epochs=1, samples=100, out=str(tmp_path))
    written = (tmp_path / "result.json").read_text()
    assert Result.read(tmp_path / "result.json").to_json() == written
    assert json.loads(written) == run.result
    Draft202012Validator(schema()).validate(run.result)


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        ("schema_version", 2, "schema_version: Input should be 1, not '2'"),
        ("clients", "3", "clients: Input should be a valid integer, not '3'"),
        ("clients", 0, "clients: Input should be greater than or equal to 1, not '0'"),
        ("more", 1, "more: Extra inputs are not permitted, not '1'"),
        ("config seed", None, "config.seed"),
        ("phases 1 samples", -1, "phases.1.samples"),
        ("phases 1 samples", True, "phases.1.samples"),
        ("phases 1 samples", 0, "only learning has neither a request nor samples"),
        ("phases 0 request", "class:2", "only learning has neither a request nor samples"),
        ("phases 1 phase", "evaluate", "phases.1.phase: Input should be 'learn' or 'unlearn'"),
        ("phases 1 accuracy unlearned", 1.5, "phases.1.accuracy.unlearned"),
        ("phases 1 accuracy per_client one", 0.5, "phases.1.accuracy.per_client.one"),
        ("phases 1 accuracy per_label", {}, "phases.1.accuracy.per_label"),
        ("phases 1 digests server", "0", "phases.1.digests.server"),
        ("phases 1 clients 0 train_seconds", -1.0, "phases.1.clients.0.train_seconds"),
        ("phases 1 clients 0 evaluation more", 1, "phases.1.clients.0.evaluation.more"),
        ("phases 1 clients", [], "phases.1.clients"),
        ("phases 1 absent", [""], "phases.1.absent.0"),
        ("phases", [], "phases: Tuple should have at least 1 item"),
        ("distribution train 0", [1], "distribution does not have one count a label"),
        ("environment python", 3, "environment.python"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, place, value, line):
    wrong = result()
    *path, last = [int(word) if word.isdigit() else word for word in place.split()]
    entry = wrong
    for key in path:
        entry = entry[key]
    entry[last] = value
    refused(tmp_path, json.dumps(wrong), line)


def refused(folder, text, line):
    path = folder / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds no result: ") as caught:
        Result.read(path)
    assert str(path) in str(caught.value)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_learning_comes_first_and_once(tmp_path):
    for wrong in ([phase("class:2")], [phase(), phase()]):
        refused(
            tmp_path,
            json.dumps({**result(), "phases": wrong}),
            "the first phase learns, and no other does",
        )


def test_what_is_missing_is_named(tmp_path):
    wrong = deepcopy(result())
    del wrong["phases"][0]["timing"]
    refused(tmp_path, json.dumps(wrong), "phases.0.timing: Field required")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\0", '{"schema_version": NaN}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    refused(tmp_path, text, "")


def test_a_result_is_not_changed_after_it_was_measured():
    with pytest.raises(ValidationError):
        read(result()).clients = 3


# Tables.


def measured():
    asked = traffic(1000, 500, 2)
    return read(
        result(
            phase(clients=[client(0, True), client(3)]),
            phase(
                "class:bird",
                unlearned=None,
                retained=0.75,
                clients=[
                    client(0, True, train_seconds=2.5, **asked, evaluation=traffic(7, 8, 1)),
                    client(3, train_seconds=0.5),
                ],
                server=server(4.0, 99),
            ),
        )
    )


def test_a_row_is_a_client_in_a_phase():
    frame = measured().to_frame()
    assert frame[["task", "client"]].values.tolist() == [[0, 0], [0, 3], [1, 0], [1, 3]]
    row = frame.iloc[2]
    assert (row["strategy"], row["dataset"], row["seed"]) == ("splitwiper", "digits", 7)
    assert (row["phase"], row["request"], row["requested"]) == ("unlearn", "class:bird", True)
    assert (row["bytes_up"], row["bytes_down"], row["messages"]) == (1000, 500, 2)
    assert (row["train_seconds"], row["accuracy"]) == (2.5, 0.5)
    assert (row["evaluation_bytes_up"], row["evaluation_bytes_down"]) == (7, 8)
    assert frame["transmission_seconds"].tolist() == [0, 0, pytest.approx(1500 * 8e-8), 0]


def test_a_row_is_a_phase_and_costs_are_added_up():
    frame = measured().to_frame(by="phase")
    assert frame["task"].tolist() == [0, 1]
    row = frame.iloc[1]
    assert (row["train_seconds"], row["server_train_seconds"]) == (3.0, 4.0)
    assert (row["bytes_up"], row["server_cache_bytes"], row["samples"]) == (1000, 99, 10)
    assert (row["evaluation_messages"], row["retained_accuracy"]) == (1, 0.75)
    assert pd.isna(row["forgotten_accuracy"])


@pytest.mark.parametrize("by", ["client", "phase"])
def test_every_column_is_of_one_type_and_frames_of_runs_fit_together(by):
    frame = measured().to_frame(by)
    kinds = {column: frame[column].dtype.kind for column in frame if "bytes" in column}
    assert set(kinds.values()) == {"i"}
    floats = [name for name in frame if "seconds" in name or name.endswith("accuracy")]
    assert {frame[name].dtype.kind for name in floats} == {"f"}
    both = pd.concat([frame, frame])
    assert list(both.columns) == list(frame.columns)
    assert (both.dtypes == frame.dtypes).all()


def test_results_are_read_without_pandas_torch_or_flower():
    code = (
        "import sys, split_unlearning.reporting.result; "
        "print([name for name in ('pandas', 'torch', 'flwr', 'ray') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]"


def test_the_schema_is_printed():
    command = [sys.executable, "-m", "split_unlearning.reporting.result"]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    assert json.loads(printed) == schema()
    Draft202012Validator.check_schema(schema())
