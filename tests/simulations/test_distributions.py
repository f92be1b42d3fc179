"""Dealing samples out: nothing lost, nothing doubled, and forgotten labels where they belong."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.loading import load
from split_unlearning.simulations.data.plan_table import plan_table
from tests.dealing import BY_LABEL, dealt_out

ONLY_REQUESTING = ["homogeneous-labels", "partial-overlap", "heterogeneous-labels"]
EQUAL_SHARES = ["partial-overlap", "heterogeneous-labels", "iid"]
FEW_HOLDERS = ["partial-overlap", "heterogeneous-labels"]

# No deadline: the machine may be busy. No surprises in a suite that has to say what broke.
examples = settings(max_examples=100, deadline=None, derandomize=True)


@st.composite
def tasks(draw, distributions=tuple(BY_LABEL), fewest=0, most=14):
    """Draw what a plan is made of, labels without a sample and far too many clients included."""
    num_classes = draw(st.integers(1, 7))
    most = draw(st.sampled_from([fewest + 2, most]))
    counts = st.lists(st.integers(fewest, most), min_size=num_classes, max_size=num_classes)
    shuffle = np.random.default_rng(draw(st.integers(0, 3)))
    num_clients = draw(st.integers(1, 14))
    return {
        "y_train": shuffle.permutation(np.repeat(np.arange(num_classes), draw(counts))),
        "y_test": shuffle.permutation(np.repeat(np.arange(num_classes), draw(counts))),
        "num_classes": num_classes,
        "distribution": draw(st.sampled_from(list(distributions))),
        "num_clients": num_clients,
        "requesting_client": draw(st.integers(0, num_clients - 1)),
        "forgotten_labels": draw(st.frozensets(st.integers(0, num_classes - 1), max_size=3)),
        "seed": draw(st.integers(0, 5)),
    }


def plan_of(task):
    """Return the plan, or None where there can be none."""
    try:
        return dealt_out(**task)
    except UserError as error:
        if "would leave client" not in str(error):
            raise
        return None


def counts_of(plan, task, split):
    return plan.label_counts(task[f"y_{split}"], split, task["num_classes"])


def others_of(task):
    return [label for label in range(task["num_classes"]) if label not in task["forgotten_labels"]]


def digits_task(**changed):
    digits = load("digits")
    task = {
        "y_train": digits.y_train,
        "y_test": digits.y_test,
        "num_classes": 10,
        "distribution": "heterogeneous-labels",
        "num_clients": 5,
        "requesting_client": 0,
        "forgotten_labels": frozenset({2}),
        "seed": 0,
    }
    return {**task, **changed}


@examples
@given(tasks())
def test_every_sample_lies_on_exactly_one_client(task):
    plan = plan_of(task)
    if plan is None:
        return
    assert plan.num_clients == task["num_clients"] == len(plan.test)
    for split in ("train", "test"):
        held = getattr(plan, split)
        everything = np.sort(np.concatenate(held))
        np.testing.assert_array_equal(everything, np.arange(len(task[f"y_{split}"])))
        for ids in held:
            assert ids.dtype == np.int64
            assert (np.diff(ids) > 0).all()
    assert all(len(ids) for ids in plan.train)


@examples
@given(tasks(distributions=ONLY_REQUESTING))
def test_forgotten_labels_lie_on_the_requesting_client_alone(task):
    plan = plan_of(task)
    if plan is None:
        return
    forgotten = sorted(task["forgotten_labels"])
    for split in ("train", "test"):
        counts = counts_of(plan, task, split)
        rest = np.delete(counts, task["requesting_client"], axis=0)
        assert not rest[:, forgotten].any()


@examples
@given(tasks())
def test_a_plan_is_refused_only_where_samples_do_not_suffice(task):
    plan = plan_of(task)
    counts = np.bincount(task["y_train"], minlength=task["num_classes"])
    clients = task["num_clients"]
    if task["distribution"] == "iid":
        assert (plan is None) == (counts.sum() < clients)
        return
    to_deal = counts[others_of(task)].sum()
    in_need = clients - bool(counts.sum() - to_deal)
    if task["distribution"] in FEW_HOLDERS:
        assert (plan is None) == (to_deal < in_need)
    else:
        assert plan is not None or to_deal < clients
        assert plan is None or to_deal >= in_need


@pytest.mark.parametrize("distribution", [*FEW_HOLDERS, "iid"])
@pytest.mark.parametrize("seed", range(10))
def test_a_sample_each_suffices(distribution, seed):
    # Labels 0 and 4 have none in train.
    labels = np.array([1, 1, 2, 3, 5, 6, 7])
    plan = dealt_out(
        labels,
        np.arange(8),
        num_classes=8,
        distribution=distribution,
        num_clients=7,
        requesting_client=6,
        forgotten_labels=frozenset({7}),
        seed=seed,
    )
    assert [len(ids) for ids in plan.train] == [1] * 7
    assert sum(len(ids) for ids in plan.test) == 8


@examples
@given(tasks(distributions=EQUAL_SHARES))
def test_holders_of_a_label_share_it_equally(task):
    plan = plan_of(task)
    if plan is None:
        return
    for split in ("train", "test"):
        for column in counts_of(plan, task, split).T:
            held = column if task["distribution"] == "iid" else column[column > 0]
            assert len(held) == 0 or held.max() - held.min() <= 1


@examples
@given(tasks(fewest=14, most=60))
def test_both_splits_hold_the_same_labels(task):
    plan = plan_of(task)
    if plan is None:
        return
    train, test = (counts_of(plan, task, split) > 0 for split in ("train", "test"))
    np.testing.assert_array_equal(train, test)


@pytest.mark.parametrize("distribution", BY_LABEL)
@pytest.mark.parametrize("num_clients", [2, 5, 12])
def test_both_splits_follow_the_same_shares(distribution, num_clients):
    task = digits_task(distribution=distribution, num_clients=num_clients)
    plan = dealt_out(**task)
    train, test = (counts_of(plan, task, split) for split in ("train", "test"))
    expected = train / train.sum(axis=0) * test.sum(axis=0)
    assert np.abs(test - expected).max() < 2.5
    assert np.abs(test.sum(axis=1) - expected.sum(axis=1)).max() < 10


@examples
@given(tasks())
def test_the_same_seed_deals_the_same(task):
    first, again = plan_of(task), plan_of(task)
    assert (first is None) == (again is None)
    if first is None:
        return
    for split in ("train", "test"):
        for ids, same in zip(getattr(first, split), getattr(again, split), strict=True):
            np.testing.assert_array_equal(ids, same)


@pytest.mark.parametrize("distribution", BY_LABEL)
def test_another_seed_deals_otherwise(distribution):
    plans = [dealt_out(**digits_task(distribution=distribution, seed=seed)) for seed in range(6)]
    for split in ("train", "test"):
        dealt = {tuple(ids.tobytes() for ids in getattr(plan, split)) for plan in plans}
        assert len(dealt) == 6


@pytest.mark.parametrize("distribution", EQUAL_SHARES)
def test_samples_of_a_shared_label_are_dealt_at_random(distribution):
    labels = np.zeros(400, dtype=np.int64)
    plan = dealt_out(
        labels,
        labels,
        num_classes=1,
        distribution=distribution,
        num_clients=4,
        requesting_client=0,
        forgotten_labels=frozenset(),
        seed=0,
    )
    holders = [ids for ids in plan.train if len(ids) >= 100]
    assert len(holders) == 4
    for ids in holders:
        # A run of neighbours spans 100; the mean of a random hundred lies in the middle.
        assert np.ptp(ids) > 300
        assert 150 < ids.mean() < 250


def test_homogeneous_labels_give_everybody_every_other_label_in_different_volumes():
    for seed in range(5):
        for num_clients in (2, 5, 30):
            task = digits_task(
                distribution="homogeneous-labels", seed=seed, num_clients=num_clients
            )
            plan = dealt_out(**task)
            for split in ("train", "test"):
                counts = counts_of(plan, task, split)[:, others_of(task)]
                assert (counts > 0).all()
            volumes = counts_of(plan, task, "train")[:, others_of(task)].sum(axis=1)
            assert volumes.max() > 1.02 * volumes.min()
            assert volumes.min() > 0.45 * volumes.mean()


def test_homogeneous_volumes_are_shares_of_a_client_and_not_of_a_label():
    task = digits_task(distribution="homogeneous-labels", num_clients=3)
    counts = counts_of(dealt_out(**task), task, "train")[:, others_of(task)]
    share = counts / counts.sum(axis=0)
    assert np.ptp(share, axis=1).max() < 0.02


def test_partial_overlap_puts_a_label_on_one_to_three_clients():
    seen = set()
    for seed in range(10):
        task = digits_task(distribution="partial-overlap", seed=seed, num_clients=8)
        holders = (counts_of(dealt_out(**task), task, "train") > 0).sum(axis=0)
        seen |= set(holders[others_of(task)].tolist())
    assert seen == {1, 2, 3}


@pytest.mark.parametrize(("num_clients", "most"), [(2, 2), (27, 3), (28, 4), (40, 5)])
def test_partial_overlap_exceeds_three_clients_a_label_only_where_it_must(num_clients, most):
    largest = 0
    for seed in range(8):
        task = digits_task(distribution="partial-overlap", seed=seed, num_clients=num_clients)
        largest = max(largest, (counts_of(dealt_out(**task), task, "train") > 0).sum(axis=0).max())
    assert largest == most


def test_heterogeneous_labels_are_two_each_for_ten_labels_and_five_clients():
    for seed in range(5):
        task = digits_task(seed=seed, requesting_client=3)
        for split in ("train", "test"):
            holds = counts_of(dealt_out(**task), task, split) > 0
            assert holds.sum(axis=0).tolist() == [1] * 10
            assert holds.sum(axis=1).tolist() == [2] * 5
            assert holds[3, 2]


@examples
@given(tasks(distributions=["heterogeneous-labels"], fewest=14, most=20))
def test_heterogeneous_labels_are_as_even_as_forgotten_ones_allow(task):
    plan = plan_of(task)
    if plan is None:
        return
    holds = counts_of(plan, task, "train") > 0
    labels = holds.sum(axis=1)
    mine = labels[task["requesting_client"]]
    rest = np.delete(labels, task["requesting_client"])
    in_need = len(labels) - bool(task["forgotten_labels"])
    if len(rest) and len(others_of(task)) >= in_need:
        assert (holds.sum(axis=0) == 1).all()
        assert np.ptp(rest) <= 1
        assert mine <= max(len(task["forgotten_labels"]), rest.min() + 1)
        assert mine == len(task["forgotten_labels"]) or mine >= rest.max() - 1
    elif len(rest):
        assert (rest == 1).all()


def test_surplus_clients_share_the_other_labels_evenly():
    task = digits_task(num_clients=28, requesting_client=5)
    holders = (counts_of(dealt_out(**task), task, "train") > 0).sum(axis=0)
    assert holders.tolist() == [3, 3, 1, 3, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("distribution", BY_LABEL)
@pytest.mark.parametrize("forgotten", [frozenset(), frozenset({2}), frozenset(range(10))])
def test_a_single_client_holds_everything(distribution, forgotten):
    task = digits_task(distribution=distribution, num_clients=1, forgotten_labels=forgotten)
    plan = dealt_out(**task)
    np.testing.assert_array_equal(plan.train[0], np.arange(len(task["y_train"])))
    np.testing.assert_array_equal(plan.test[0], np.arange(len(task["y_test"])))


def test_iid_gives_forgotten_labels_to_everybody():
    task = digits_task(distribution="iid", forgotten_labels=frozenset(range(10)))
    assert (counts_of(dealt_out(**task), task, "train") >= 28).all()


def test_label_counts_count_every_split():
    task = digits_task()
    plan = dealt_out(**task)
    for split in ("train", "test"):
        counts = counts_of(plan, task, split)
        labels = task[f"y_{split}"]
        for client, ids in enumerate(getattr(plan, split)):
            assert [(labels[ids] == label).sum() for label in range(10)] == counts[client].tolist()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"num_clients": 0}, "num-supernodes=0 "),
        ({"num_clients": -3}, "num-supernodes=-3 "),
        ({"requesting_client": 5}, "forget-client=5 is not possible; allowed: 0 to 4"),
        ({"requesting_client": -1}, "forget-client=-1 "),
        ({"forgotten_labels": frozenset({2, 10})}, "forget='class:10' "),
        ({"forgotten_labels": frozenset({-1})}, "forget='class:-1' "),
        ({"distribution": "nothing"}, "distribution='nothing' "),
        ({"distribution": ""}, "distribution='' "),
    ],
)
def test_bad_input_is_refused_by_key(changed, told):
    with pytest.raises(UserError) as refused:
        dealt_out(**digits_task(**changed))
    assert str(refused.value).startswith(told)
    assert "\n" not in str(refused.value)


def test_an_unknown_distribution_is_refused_with_the_known_ones():
    with pytest.raises(UserError) as refused:
        dealt_out(**digits_task(distribution="nothing"))
    for known in BY_LABEL:
        assert known in str(refused.value)


@pytest.mark.parametrize("distribution", BY_LABEL)
def test_more_clients_than_samples_are_refused_with_the_numbers(distribution):
    with pytest.raises(UserError) as refused:
        dealt_out(**digits_task(distribution=distribution, num_clients=1500))
    message = str(refused.value)
    assert message.startswith(f"num-supernodes=1500, distribution={distribution!r} would leave")
    assert "1442 samples" in message
    assert "\n" not in message


@pytest.mark.parametrize("distribution", ONLY_REQUESTING)
def test_forgetting_every_label_leaves_the_others_empty_and_is_refused(distribution):
    with pytest.raises(UserError, match=r"would leave client 0 \(and 3 more\) without a sample"):
        dealt_out(
            **digits_task(
                distribution=distribution,
                requesting_client=2,
                forgotten_labels=frozenset(range(10)),
            )
        )


def labelled(names, samples_each):
    """Return a data set of black pixels whose labels are all that matters."""
    labels = np.repeat(np.arange(len(names)), samples_each)
    images = np.zeros((len(labels), 1, 1, 1), dtype=np.uint8)
    return Dataset("labelled", images, labels, images, labels, tuple(names))


def table_of(dataset, num_clients, distribution="heterogeneous-labels"):
    task = {
        "y_train": dataset.y_train,
        "y_test": dataset.y_test,
        "num_classes": dataset.num_classes,
        "distribution": distribution,
        "num_clients": num_clients,
        "requesting_client": 0,
        "forgotten_labels": frozenset({0}),
        "seed": 0,
    }
    plan = dealt_out(**task)
    return plan, plan_table(plan, dataset)


def test_the_table_shows_every_count():
    digits = load("digits")
    plan, text = table_of(digits, 4, "homogeneous-labels")
    lines = text.splitlines()
    counts = plan.label_counts(digits.y_train, "train", 10)

    assert lines[0].split() == ["client", *"0123456789", "train", "test"]
    for client in range(4):
        numbers = [int(word.replace("-", "0")) for word in lines[1 + client].split()]
        train, test = len(plan.train[client]), len(plan.test[client])
        assert numbers == [client, *counts[client], train, test]
    assert lines[5].split() == ["all", *map(str, counts.sum(axis=0)), "1442", "355"]
    assert len(lines) == 6


def test_the_table_shows_twenty_clients_and_how_many_more():
    lines = table_of(load("digits"), 27)[1].splitlines()
    assert [line.split()[0] for line in lines[1:21]] == [str(client) for client in range(20)]
    assert lines[21] == "... and 7 more clients"
    assert lines[22].split()[0] == "all"
    assert lines[22].split()[-2:] == ["1442", "355"]
    assert "more" not in table_of(load("digits"), 20)[1]


def test_many_labels_are_counted_instead_of_listed():
    lines = table_of(labelled([f"class {label}" for label in range(13)], 3), 4)[1].splitlines()
    assert lines[0].split() == ["client", "labels", "train", "test"]
    assert sum(int(line.split()[1]) for line in lines[1:5]) == 13
    assert lines[5].split() == ["all", "13", "39", "39"]


@pytest.mark.parametrize("num_classes", [1, 10, 12, 100])
def test_the_table_is_plain_text_of_at_most_a_hundred_columns(monkeypatch, num_classes):
    monkeypatch.setenv("FORCE_COLOR", "1")
    names = [f"[red]{label} a rather long name of a class[/]" for label in range(num_classes)]
    lines = table_of(labelled(names, 3000), 1)[1].splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 100
    assert not re.search(r"[^\x20-\x7e]", "".join(lines))
    assert ("[red" in lines[0]) == (num_classes <= 12)
    assert lines[-1].split()[-2:] == [str(3000 * num_classes)] * 2
