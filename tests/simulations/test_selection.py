"""Which samples a run sees: fewer, or those of a shadow run; disjoint, seeded, by label."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.selection import Selection
from split_unlearning.simulations.preparation import deal, prepare
from tests.configs import config_of

SEEDS = st.integers(0, 2**63 - 1)


@st.composite
def label_sets(draw, least=1):
    """Labels of a split, in any order; some labels may have no sample."""
    counts = draw(st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any))
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)


def counts_of(labels, ids):
    return np.bincount(labels[ids], minlength=labels.max() + 1)


@given(label_sets(), SEEDS, st.data())
def test_so_many_samples_are_seen_each_label_in_proportion(labels, seed, data):
    counts = np.bincount(labels)
    wanted = data.draw(st.integers((counts > 0).sum(), len(labels)))
    ids = Selection(samples=wanted).seen(labels, "train", seed)
    assert ids.dtype == np.int64
    assert len(ids) == wanted
    assert (np.diff(ids) > 0).all()
    found = counts_of(labels, ids)
    assert (found[counts > 0] >= 1).all()
    # One each, then shares of the rest: never a whole sample off.
    spare = np.maximum(counts - 1, 0)
    share = (wanted - (counts > 0).sum()) / max(spare.sum(), 1)
    assert (np.abs(found - np.minimum(counts, 1) - spare * share) < 1).all()


@given(label_sets(), SEEDS, st.sampled_from(["train", "test"]))
def test_by_default_everything_is_seen(labels, seed, split):
    assert Selection().seen(labels, split, seed).tolist() == list(range(len(labels)))


@given(label_sets(), SEEDS, st.floats(0, 1, exclude_max=True), st.integers(1, 4), st.data())
def test_no_shadow_run_sees_what_the_target_sees(labels, seed, share, shadow, data):
    least = len(np.unique(labels))
    size = {"samples": data.draw(st.sampled_from([0, least, len(labels)]))}
    size["test_samples"] = size["samples"]
    chosen = Selection(**size).seen(labels, "train", seed)
    target = Selection(**size, shadow_share=share)
    run = Selection(**size, shadow_share=share, shadow=shadow)
    seen, own = target.seen(labels, "train", seed), run.seen(labels, "train", seed)
    pool = np.setdiff1d(chosen, seen)
    assert np.isin(own, pool).all()
    # Of each label: a share of it is set aside, and the target keeps some.
    total, aside, kept = (counts_of(labels, ids) for ids in (chosen, pool, seen))
    expected = np.minimum(np.round(share * total), np.maximum(total - 1, 0))
    assert aside.tolist() == expected.tolist()
    # It trains on no more than the target does, nor on all that is set aside.
    most = np.minimum(np.maximum(1, (0.75 * aside).astype(int)), aside)
    assert counts_of(labels, own).tolist() == np.minimum(kept, most).tolist()
    # It is tested on all that the target is not tested on.
    tested, pooled = target.seen(labels, "test", seed), run.seen(labels, "test", seed)
    everything = Selection(**size).seen(labels, "test", seed)
    assert sorted([*tested, *pooled]) == everything.tolist()


@given(label_sets(), SEEDS)
def test_a_seed_says_which_and_smaller_draws_are_part_of_larger_ones(labels, seed):
    least = len(np.unique(labels))
    few = Selection(samples=least).seen(labels, "train", seed)
    assert few.tolist() == Selection(samples=least).seen(labels, "train", seed).tolist()
    more = Selection(samples=len(labels)).seen(labels, "train", seed)
    assert np.isin(few, more).all()


def test_another_seed_and_another_shadow_run_draw_others():
    labels = np.repeat(np.arange(3), 100)
    drawn = [
        tuple(Selection(shadow_share=0.5, shadow=shadow).seen(labels, "train", seed))
        for seed, shadow in ((0, 1), (0, 2), (1, 1), (0, 3))
    ]
    assert len(set(drawn)) == len(drawn)
    splits = [Selection(samples=30).seen(labels, split, 0).tolist() for split in ("train",)]
    splits.append(Selection(test_samples=30).seen(labels, "test", 0).tolist())
    assert splits[0] != splits[1]


@pytest.mark.parametrize(("key", "value"), [("samples", 9), ("samples", 1443), ("test-samples", 5)])
def test_what_there_is_not_is_refused_in_one_line(key, value):
    with pytest.raises(UserError) as refused:
        prepare(RunConfig.from_mapping({key: value}), 3)
    assert str(refused.value).startswith(
        f"{key}={value} is not possible; allowed: 0 for all, or 10"
    )


def test_a_shadow_run_needs_a_share():
    with pytest.raises(UserError, match="shadow=1 is not possible; allowed: 0 "):
        config_of(shadow=1).check()


@pytest.mark.parametrize("distribution", ["heterogeneous-labels", "iid", "uniform"])
def test_ids_stay_rows_of_the_whole_data_set(distribution):
    settings = {"distribution": distribution, "samples": 600, "test_samples": 200}
    settings |= {"shadow_share": 0.5}
    plans = {}
    for shadow in range(3):
        dataset, plan = deal(config_of(shadow=shadow, **settings), 3)
        assert (len(dataset.y_train), len(dataset.y_test)) == (1442, 355)
        plans[shadow] = [np.concatenate(held) for held in (plan.train, plan.test)]
        for held in plans[shadow]:
            assert len(np.unique(held)) == len(held)
    train, test = plans[0]
    # Half of each label's samples, rounded label by label.
    assert abs(len(train) - 300) <= 5
    assert abs(len(test) - 100) <= 5
    assert np.abs(np.bincount(dataset.y_train[train]) - 30).max() <= 1
    for shadow in (1, 2):
        assert not np.isin(plans[shadow][0], train).any()
        assert not np.isin(plans[shadow][1], test).any()
        assert len(plans[shadow][1]) == 200 - len(test)
        assert abs(len(plans[shadow][0]) - 225) <= 10
    assert plans[1][0].tolist() != plans[2][0].tolist()


def test_who_holds_which_label_is_as_in_the_target_and_all_else_is_drawn_anew():
    target = config_of(shadow_share=0.5)
    shadow = config_of(shadow_share=0.5, shadow=1)
    for client in range(3):
        held = [
            set(dataset.y_train[plan.train[client]].tolist())
            for dataset, plan in (deal(target, 3), deal(shadow, 3))
        ]
        assert held[0] == held[1]
    assert target.training().seed == target.seed == shadow.seed
    assert shadow.training().seed not in (0, config_of(shadow_share=0.5, shadow=2).training().seed)


def test_a_request_for_what_the_run_does_not_see_says_so(tmp_path):
    unseen = np.setdiff1d(np.arange(1442), np.concatenate(deal(config_of(samples=100), 3)[1].train))
    file = tmp_path / "ids.txt"
    file.write_text(str(unseen[0]))
    with pytest.raises(UserError, match="samples and shadow-share keep rows from a run"):
        prepare(config_of(samples=100, forget=f"ids:{file}"), 3)
