"""Distributions of flwr-datasets by name, and ours as partitioners of it."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from datasets import Dataset
from flwr_datasets.partitioner import DirichletPartitioner
from hypothesis import event, given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data import partitioners
from split_unlearning.simulations.data.distributions import flwr_datasets
from split_unlearning.simulations.data.distributions.registry import DISTRIBUTIONS
from split_unlearning.simulations.data.loading import load
from split_unlearning.simulations.preparation import deal
from tests.dealing import BY_LABEL, BY_LIBRARY, dealt_out

ROOT = Path(__file__).resolve().parents[2]
OURS = {
    one.distribution.name: one
    for one in vars(partitioners).values()
    if isinstance(one, type) and hasattr(one, "distribution")
}

examples = settings(max_examples=15, deadline=None, derandomize=True)


def make_each_time(name, make):
    return make()


@st.composite
def tasks(draw):
    """Draw what a plan is made of, labels without a sample and too many clients included."""
    num_classes = draw(st.integers(1, 6))
    counts = st.lists(st.integers(0, 25), min_size=num_classes, max_size=num_classes)
    shuffle = np.random.default_rng(draw(st.integers(0, 3)))
    train = shuffle.permutation(np.repeat(np.arange(num_classes), draw(counts)))
    return {
        "y_train": train if len(train) else np.zeros(1, dtype=np.int64),
        "y_test": shuffle.permutation(np.repeat(np.arange(num_classes), draw(counts))),
        "num_classes": num_classes,
        "distribution": draw(st.sampled_from(BY_LIBRARY)),
        "num_clients": draw(st.integers(1, 8)),
        "options": {
            "dirichlet-alpha": draw(st.sampled_from([0.1, 1.0, 100.0])),
            "labels-per-client": draw(st.integers(1, 4)),
            "shards-per-client": draw(st.integers(1, 4)),
        },
        "seed": draw(st.integers(0, 5)),
    }


def digits_plan(distribution, num_clients=10, seed=0, own=None):
    digits = load("digits")
    return dealt_out(
        digits.y_train,
        digits.y_test,
        num_classes=10,
        distribution=distribution,
        num_clients=num_clients,
        options=own,
        seed=seed,
    )


def digits_counts(plan, split="train"):
    return plan.label_counts(getattr(load("digits"), f"y_{split}"), split, 10)


@examples
@given(tasks())
def test_every_sample_lies_on_exactly_one_client_and_no_client_is_empty(task):
    with patch.object(flwr_datasets, "kept", make_each_time):
        try:
            plan = dealt_out(**task)
        except UserError as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            event("refused")
            assert " is not possible; allowed: " in refused
            assert "\n" not in refused
            return
        again = dealt_out(**task)
    for split in ("train", "test"):
        held, same = getattr(plan, split), getattr(again, split)
        assert len(held) == task["num_clients"]
        everything = np.sort(np.concatenate(held))
        np.testing.assert_array_equal(everything, np.arange(len(task[f"y_{split}"])))
        for ids, other in zip(held, same, strict=True):
            assert ids.dtype == np.int64
            assert (np.diff(ids) > 0).all()
            np.testing.assert_array_equal(ids, other)
    assert all(len(ids) for ids in plan.train)


# Many clients with three of ten labels each leave none out; two each of five clients would.
EXAMPLES = {"uniform": {}, "dirichlet": {}, "pathological": {"labels-per-client": 3}, "shards": {}}


@pytest.mark.parametrize("distribution", BY_LIBRARY)
def test_the_test_split_is_dealt_alike(distribution):
    plan = digits_plan(distribution, own=EXAMPLES[distribution])
    train, test = digits_counts(plan), digits_counts(plan, "test")
    # Each holder of a label gets one sample first, and then its share of the others.
    holds = train > 0
    spare = test.sum(axis=0) - holds.sum(axis=0)
    assert (spare >= 0).all()
    expected = np.where(holds, 1 + train / train.sum(axis=0) * spare, 0)
    assert np.abs(test - expected).max() < 2
    assert not test[~holds].any()


@pytest.mark.parametrize("distribution", BY_LIBRARY)
def test_another_seed_deals_otherwise(distribution):
    plans = [digits_plan(distribution, seed=seed, own=EXAMPLES[distribution]) for seed in range(3)]
    for split in ("train", "test"):
        dealt = {tuple(ids.tobytes() for ids in getattr(plan, split)) for plan in plans}
        assert len(dealt) == 3


def test_uniform_is_even_in_number_and_random_in_label():
    plan = digits_plan("uniform", num_clients=5)
    assert {len(ids) for ids in plan.train} == {288, 289}
    counts = digits_counts(plan)
    # Of 29 expected each: five standard deviations.
    assert np.abs(counts - 29).max() < 25
    assert np.ptp(counts) > 3


def test_dirichlet_deals_what_the_librarys_own_partitioner_deals():
    labels = load("digits").y_train
    seed = derive_seed(7, "distribution", "dirichlet", 0)
    places = np.random.default_rng(seed).permutation(len(labels))
    theirs = DirichletPartitioner(6, "label", 0.3, min_partition_size=1, seed=seed)
    theirs.dataset = Dataset.from_dict({"label": labels[places]})
    plan = digits_plan("dirichlet", num_clients=6, seed=7, own={"dirichlet-alpha": 0.3})
    counts = digits_counts(plan)
    for client in range(6):
        dealt = np.bincount(theirs.load_partition(client)["label"], minlength=10)
        np.testing.assert_array_equal(counts[client], dealt)


def test_dirichlet_with_a_small_alpha_is_more_skewed():
    def largest_share(alpha):
        counts = digits_counts(
            digits_plan("dirichlet", num_clients=5, own={"dirichlet-alpha": alpha})
        )
        return (counts.max(axis=0) / counts.sum(axis=0)).mean()

    assert largest_share(0.1) > largest_share(1.0) + 0.1 > largest_share(100.0) + 0.2


def test_pathological_gives_so_many_labels_to_each():
    for number in (3, 5):
        counts = digits_counts(digits_plan("pathological", own={"labels-per-client": number}))
        assert ((counts > 0).sum(axis=1) == number).all()


def test_shards_give_few_labels_to_each():
    counts = digits_counts(digits_plan("shards", num_clients=10, own={"shards-per-client": 2}))
    assert ((counts > 0).sum(axis=1) <= 4).all()
    assert np.ptp(counts.sum(axis=1)) <= 73


@pytest.mark.parametrize(
    ("distribution", "told", "clients", "start"),
    [
        ("dirichlet", {"dirichlet-alpha": 1e-3}, 20, "dirichlet-alpha=0.001 "),
        ("pathological", {"labels-per-client": 1}, 5, "labels-per-client=1 "),
        ("pathological", {"labels-per-client": 11}, 5, "labels-per-client=11 "),
        ("shards", {"shards-per-client": 1}, 1000, "shards-per-client=1 "),
    ],
)
def test_what_cannot_be_dealt_is_refused_by_key(distribution, told, clients, start):
    with pytest.raises(UserError) as refused:
        digits_plan(distribution, num_clients=clients, own=told)
    assert str(refused.value).startswith(start)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("distribution", BY_LIBRARY)
def test_a_run_is_dealt_by_name(distribution):
    keys = {"labels-per-client": 3} if distribution == "pathological" else {}
    config = RunConfig.from_mapping({"distribution": distribution, **keys})
    config.check()
    _, plan = deal(config, 10)
    expected = digits_plan(distribution, own=EXAMPLES[distribution])
    for ids, same in zip(plan.train, expected.train, strict=True):
        np.testing.assert_array_equal(ids, same)


def test_a_client_that_there_is_not_is_refused():
    config = RunConfig.from_mapping({"distribution": "uniform", "forget-client": 5})
    with pytest.raises(UserError, match="forget-client=5 is not possible"):
        deal(config, 5)


@pytest.mark.parametrize("key", ["dirichlet-alpha", "labels-per-client", "shards-per-client"])
@pytest.mark.parametrize("distribution", [*BY_LABEL, *BY_LIBRARY])
def test_a_setting_that_a_distribution_does_not_read_is_refused(key, distribution):
    config = RunConfig.from_mapping({"distribution": distribution, key: 3})
    if key in DISTRIBUTIONS.get(distribution).reads():
        config.check()
        return
    with pytest.raises(UserError, match=f"distribution='{distribution}' ignores it"):
        config.check()


def test_what_was_dealt_is_kept_for_the_processes_of_the_clients(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = digits_plan("shards", seed=11)
    monkeypatch.setattr(flwr_datasets, "_dealt", lambda *_: pytest.fail("dealt again"))
    again = digits_plan("shards", seed=11)
    for split in ("train", "test"):
        for ids, same in zip(getattr(first, split), getattr(again, split), strict=True):
            np.testing.assert_array_equal(ids, same)
            assert same.dtype == np.int64


def test_a_clients_process_starts_without_what_only_dealing_and_decoding_take():
    script = "import sys, split_unlearning.simulations.client_app; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "torch" in said
    assert {"datasets", "flwr_datasets", "torchvision", "sklearn", "PIL"} & set(said) == set()


# Ours, as partitioners.


def test_every_distribution_of_ours_is_a_partitioner():
    assert set(OURS) == set(DISTRIBUTIONS.names()) - set(BY_LIBRARY)


@st.composite
def partitionings(draw):
    num_classes = draw(st.integers(1, 5))
    counts = st.lists(st.integers(10, 20), min_size=num_classes, max_size=num_classes)
    shuffle = np.random.default_rng(draw(st.integers(0, 3)))
    clients = draw(st.integers(1, 5))
    return {
        "train": shuffle.permutation(np.repeat(np.arange(num_classes), draw(counts))),
        "test": shuffle.permutation(np.repeat(np.arange(num_classes), draw(counts))),
        "distribution": draw(st.sampled_from(sorted(BY_LABEL))),
        "clients": clients,
        "requesting": draw(st.integers(0, clients - 1)),
        "forgotten": draw(st.frozensets(st.integers(0, num_classes - 1), max_size=2)),
        "seed": draw(st.integers(0, 5)),
    }


@examples
@given(partitionings(), st.booleans())
def test_partitions_are_what_a_run_deals(task, named):
    names = [f"name {label}" if named else label for label in range(5)]
    split = {
        key: Dataset.from_dict(
            {"id": np.arange(len(task[key])), "kind": [names[label] for label in task[key]]}
        )
        for key in ("train", "test")
    }
    told = {
        "num_partitions": task["clients"],
        "partition_by": "kind",
        "requesting_partition": task["requesting"],
        "forgotten_labels": [names[label] for label in task["forgotten"]],
        "seed": task["seed"],
    }
    train = OURS[task["distribution"]](**told)
    test = OURS[task["distribution"]](**told, like=train)
    train.dataset, test.dataset = split["train"], split["test"]
    try:
        plan = dealt_out(
            task["train"],
            task["test"],
            num_classes=len(set(task["train"].tolist())),
            distribution=task["distribution"],
            num_clients=task["clients"],
            requesting_client=task["requesting"],
            forgotten_labels=task["forgotten"],
            seed=task["seed"],
        )
    except UserError as error:
        expected = str(error)
    else:
        expected = ""
    if expected:
        with pytest.raises(UserError) as refused:
            train.load_partition(0)
        assert str(refused.value) == expected
        return
    assert train.num_partitions == task["clients"]
    for client in range(task["clients"]):
        assert train.load_partition(client)["id"][:] == plan.train[client].tolist()
        assert test.load_partition(client)["id"][:] == plan.test[client].tolist()


LETTERS = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
TASKS = [("d", "a"), ["e", "b", "c"]]


def by_tasks(letters, **told):
    """The partitioner of the train split, and its data set, of rows in no order."""
    rows = np.random.default_rng(1).permutation(np.repeat(letters, 12))
    partitioner = OURS["different-tasks"](**{"num_partitions": 5, "tasks": TASKS, **told})
    partitioner.dataset = Dataset.from_dict({"id": np.arange(len(rows)), "label": rows})
    return partitioner, rows


@pytest.mark.parametrize(("requesting", "forgotten"), [(0, "a"), (4, "e"), (0, "")])
def test_tasks_are_dealt_as_in_a_run(requesting, forgotten):
    told = {"requesting_partition": requesting, "forgotten_labels": list(forgotten), "seed": 3}
    train, rows = by_tasks(list(LETTERS), **told)
    test, test_rows = by_tasks(list(LETTERS), **told, like=train)
    y_train, y_test = (np.array([LETTERS[one] for one in some]) for some in (rows, test_rows))
    plan = dealt_out(
        y_train,
        y_test,
        distribution="different-tasks",
        task_of_label=np.array([0, 1, 1, 0, 1]),
        num_clients=5,
        requesting_client=requesting,
        forgotten_labels=frozenset(LETTERS[one] for one in forgotten),
        seed=3,
    )
    for client in range(5):
        held = train.load_partition(client)
        assert held["id"][:] == plan.train[client].tolist()
        assert test.load_partition(client)["id"][:] == plan.test[client].tolist()
        task = TASKS[0] if client < 3 else TASKS[1]
        assert set(held["label"]) <= set(task) - (set() if client == requesting else {forgotten})


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"tasks": [("a", "b"), ("c", "d")]}, "tasks=.*'e' too"),
        ({"tasks": [*TASKS, ("a",)]}, "tasks=.*'a' too"),
        ({"num_partitions": 1}, "at least 2, one for each task"),
        ({"forgotten_labels": ["e"]}, "forget='class:4' .*task of forget-client=0"),
        ({"forgotten_labels": ["z"]}, "forget="),
    ],
)
def test_tasks_that_cannot_be_dealt_are_refused(told, words):
    partitioner, _ = by_tasks(list(LETTERS), **told)
    with pytest.raises(UserError, match=words):
        partitioner.load_partition(0)


def test_a_label_that_the_column_does_not_hold_is_refused():
    partitioner = partitioners.HeterogeneousLabelsPartitioner(2, forgotten_labels=["cat"])
    partitioner.dataset = Dataset.from_dict({"label": ["dog", "bird", "dog"]})
    with pytest.raises(UserError):
        partitioner.load_partition(0)
