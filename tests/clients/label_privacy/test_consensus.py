"""Label consensus: all labels, nobody's own (SplitWiper+, Algorithm 3)."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from split_unlearning.clients.label_privacy.consensus import ConsensusSettings, Pool, visited

LABELS = 12

label_sets = st.lists(
    st.sets(st.integers(0, LABELS - 1), min_size=1, max_size=6), min_size=1, max_size=6
)
chances = st.floats(0.2, 1.0)
settings = st.builds(ConsensusSettings, add=chances, finish=chances, most=st.integers(1, 4))


def rounds(held, chosen, seed, most=10_000):
    """Yield the pool before and after each visit, and whose it was, until all are done."""
    pool = Pool()
    for number in range(most):
        for place, own in enumerate(held):
            draws = np.random.default_rng([seed, number, place])
            after = visited(pool, place, own, chosen, draws)
            yield pool, after, place
            pool = after
        if len(pool.done) == len(held):
            return
    pytest.fail("they never agree")


@given(label_sets, settings, st.integers(0, 1000))
def test_clients_agree_on_the_union_of_their_labels(held, chosen, seed):
    *_, (_, agreed, _) = rounds(held, chosen, seed)
    assert agreed.labels == set().union(*held)
    assert agreed.done == set(range(len(held)))


@given(label_sets, settings, st.integers(0, 1000))
def test_a_visit_adds_a_few_of_ones_own_labels_and_takes_nothing_away(held, chosen, seed):
    for before, after, place in rounds(held, chosen, seed):
        added = after.labels - before.labels
        assert after.labels >= before.labels
        assert len(added) <= chosen.most
        assert added <= held[place]
        assert after.done - before.done <= {place}
        assert after.done >= before.done
        if place in before.done:
            assert after == before
        if place in after.done:
            assert held[place] <= after.labels


def test_a_client_adds_as_often_as_chance_says_and_each_number_up_to_the_most():
    chosen = ConsensusSettings(add=0.3, finish=1.0, most=3)
    own = set(range(6))
    draws = np.random.default_rng(0)
    added = [len(visited(Pool(), 0, own, chosen, draws).labels) for _ in range(4000)]
    shares = np.bincount(added, minlength=4) / len(added)
    assert shares == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.02)


def test_a_client_says_that_it_is_done_as_often_as_chance_says():
    chosen = ConsensusSettings(add=1.0, finish=0.25, most=2)
    draws = np.random.default_rng(0)
    pool = Pool(frozenset({1, 2, 3}))
    done = [len(visited(pool, 0, {1, 3}, chosen, draws).done) for _ in range(4000)]
    assert np.mean(done) == pytest.approx(0.25, abs=0.02)
    # What it misses keeps it from being done, whatever chance says.
    waiting = ConsensusSettings(add=1e-9, finish=1.0, most=2)
    assert not visited(Pool(frozenset({1})), 0, {1, 3}, waiting, draws).done


pools = st.builds(
    Pool,
    st.frozensets(st.integers(0, LABELS - 1)),
    st.frozensets(st.integers(0, 4)),
)


@given(pools)
def test_a_pool_comes_back_as_it_was(pool):
    assert Pool.unpack(pool.pack(LABELS, 5), LABELS, 5) == pool


@given(pools, pools)
def test_a_pool_is_as_long_whatever_is_in_it(one, other):
    assert len(one.pack(LABELS, 5)) == len(other.pack(LABELS, 5))


@given(pools, pools)
def test_no_two_pools_read_the_same(one, other):
    assume(one != other)
    assert one.pack(LABELS, 5) != other.pack(LABELS, 5)


def test_a_pool_of_another_list_of_labels_is_refused():
    with pytest.raises(ValueError, match="do not know the same list of labels"):
        Pool.unpack(Pool().pack(100, 5), LABELS, 5)
