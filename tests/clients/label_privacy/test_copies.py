"""Which masked labels a record gets, and under which name it travels."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from split_unlearning.clients.label_privacy.copies import assign, modes, pseudonyms
from split_unlearning.clients.label_privacy.label_map import Expansion, LabelMap
from split_unlearning.clients.label_privacy.secrets import derive_key
from split_unlearning.foundations.errors import UserError

SECRET, SHARED = bytes(range(32)), bytes(range(1, 33))
COPIES = ("replicate", "partition", "modes")
MAP = LabelMap.drawn((0, 2, 7), Expansion(1, 3), SHARED)
THREES = LabelMap.drawn((0, 2, 7), Expansion(3, 3), SHARED)


def records(ids, seed=0, size=4):
    """Return smashed data and labels of ids, each a function of the id alone."""
    drawn = [np.random.default_rng([seed, int(one)]) for one in ids]
    smashed = [rng.normal(size=size) + 4 * rng.integers(0, 3) for rng in drawn]
    labels = [rng.choice([0, 2, 7]) for rng in drawn]
    rows = np.array(smashed, dtype=np.float32).reshape(-1, size)
    return rows, np.array(labels, dtype=np.int64)


sets_of_ids = st.sets(st.integers(0, 2**62), min_size=1, max_size=25).map(
    lambda ids: np.array(sorted(ids), dtype=np.int64)
)


def by_record(assignment):
    """Return what each copy of each record got, whatever the order."""
    columns = (assignment.ids, assignment.copy, assignment.masked, assignment.pseudonyms)
    return {(i, c): (m, p) for i, c, m, p in zip(*map(np.ndarray.tolist, columns), strict=True)}


@pytest.mark.parametrize("copies", COPIES)
@given(ids=sets_of_ids)
@settings(max_examples=25, deadline=None)
def test_every_record_is_there_under_its_own_labels(copies, ids):
    smashed, labels = records(ids)
    found = assign(copies, smashed, labels, ids, MAP, SECRET, 0)
    assert (found.ids == ids[found.rows]).all()
    assert (MAP.real_of[found.masked] == labels[found.rows]).all()
    assert (np.diff(found.pseudonyms) > 0).all()
    assert found.pseudonyms.min() >= 0
    assert found.pseudonyms.max() < 2**40
    assert {column.dtype for column in vars(found).values()} == {np.dtype(np.int64)}
    for place, label in enumerate(labels.tolist()):
        mine = found.rows == place
        if copies == "replicate":
            assert sorted(found.masked[mine]) == sorted(MAP.masked_of(label))
            assert sorted(found.copy[mine]) == list(range(len(MAP.masked_of(label))))
        else:
            assert found.copy[mine].tolist() == [0]


@pytest.mark.parametrize("copies", COPIES)
@given(ids=sets_of_ids, data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_records_has_no_say(copies, ids, data):
    smashed, labels = records(ids)
    other = np.array(data.draw(st.permutations(range(len(ids)))))
    one = assign(copies, smashed, labels, ids, THREES, SECRET, 3)
    two = assign(copies, smashed[other], labels[other], ids[other], THREES, SECRET, 3)
    assert (one.pseudonyms == two.pseudonyms).all()
    assert (one.masked == two.masked).all()
    assert (one.ids == two.ids).all()
    assert (one.copy == two.copy).all()


@pytest.mark.parametrize("copies", ["replicate", "partition"])
@given(ids=sets_of_ids, data=st.data())
@settings(max_examples=25, deadline=None)
def test_what_a_record_gets_depends_on_no_other(copies, ids, data):
    _, labels = records(ids)
    kept = np.array(data.draw(st.lists(st.sampled_from(range(len(ids))), unique=True)), dtype=int)
    of_all = by_record(assign(copies, None, labels, ids, MAP, SECRET, 1))
    of_some = by_record(assign(copies, None, labels[kept], ids[kept], MAP, SECRET, 1))
    assert of_some.items() <= of_all.items()


@pytest.mark.parametrize("copies", COPIES)
def test_a_client_without_records_uploads_none(copies):
    none = np.array([], dtype=np.int64)
    found = assign(copies, np.zeros((0, 3), np.float32), none, none, MAP, SECRET, 0)
    assert {column.shape for column in vars(found).values()} == {(0,)}


def test_a_partition_is_about_equal_and_new_in_each_generation():
    ids = np.arange(3000)
    labels = np.full(3000, 2)
    first, second = (assign("partition", None, labels, ids, THREES, SECRET, g) for g in (0, 1))
    counts = np.bincount(first.masked, minlength=9)[list(THREES.masked_of(2))]
    assert (counts > 900).all()
    one, two = by_record(first), by_record(second)
    same = np.mean([one[key][0] == two[key][0] for key in one])
    assert 0.28 < same < 0.39


# Modes.


def test_modes_are_the_groups_that_are_there():
    """Three heaps far apart are found, whatever group got which number."""
    rng = np.random.default_rng(5)
    heap = rng.integers(0, 3, 120)
    smashed = (rng.normal(size=(120, 2, 3)) + 50 * heap[:, None, None]).astype(np.float32)
    labels, ids = np.full(120, 7), rng.permutation(10**6)[:120]
    found = assign("modes", smashed, labels, ids, THREES, SECRET, 0)
    pairs = set(zip(heap[found.rows].tolist(), found.masked.tolist(), strict=True))
    assert len(pairs) == 3
    assert {masked for _, masked in pairs} == set(THREES.masked_of(7))
    # Which heap gets which label is not to be read off their sizes: it is new in each generation.
    maps = set()
    for generation in range(40):
        found = assign("modes", smashed, labels, ids, THREES, SECRET, generation)
        maps.add(tuple(sorted(set(zip(heap[found.rows], found.masked, strict=True)))))
    assert len(maps) == 6


def test_modes_are_those_of_kmeans():
    smashed, _ = records(np.arange(300), size=6)
    seed = bytes([9, 1, 0, 0, 5])
    expected = KMeans(3, n_init=1, random_state=9 + 256).fit(smashed.astype(np.float64)).labels_
    assert (modes(smashed, 3, seed) == expected).all()


@pytest.mark.parametrize("different", [1, 2, 3, 4])
def test_there_are_no_more_modes_than_different_records(different):
    smashed = np.eye(different, 5, dtype=np.float32)[np.arange(20) % different]
    found = modes(smashed, 3, bytes(4))
    assert len(np.unique(found)) == min(different, 3)
    assert found.min() >= 0
    assert found.max() < 3
    if different <= 3:
        same = (smashed[:, None] == smashed[None]).all(axis=2)
        assert ((found[:, None] == found[None]) == same).all()


def test_one_mode_needs_no_clustering(monkeypatch):
    monkeypatch.setattr(KMeans, "fit", None)
    assert modes(np.ones((4, 2), np.float32), 3, bytes(4)).tolist() == [0] * 4
    assert modes(np.eye(4, dtype=np.float32), 1, bytes(4)).tolist() == [0] * 4


def test_modes_are_found_on_one_thread(monkeypatch):
    """However many the process may use; bits of sums would follow from the number."""
    inside = []
    fit = KMeans.fit

    def watched(self, x):
        inside.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(self, x)

    monkeypatch.setattr(KMeans, "fit", watched)
    smashed, _ = records(np.arange(2000), size=40)
    with threadpool_limits(limits=4):
        four = modes(smashed, 3, bytes(4))
    with threadpool_limits(limits=1):
        one = modes(smashed, 3, bytes(4))
    assert set(inside) == {1}
    assert (four == one).all()


def test_modes_do_not_touch_what_they_look_at():
    smashed, _ = records(np.arange(50))
    before = smashed.copy()
    modes(smashed, 3, bytes(4))
    assert (smashed == before).all()


# Pseudonyms.


def test_names_tell_neither_ids_nor_copies_nor_generations_apart():
    ids = np.repeat(np.arange(5000), 2)
    copy = np.tile([0, 1], 5000)
    names = {
        "one": pseudonyms(SECRET, ids, copy, 0),
        "next": pseudonyms(SECRET, ids, copy, 1),
        "other": pseudonyms(SECRET[::-1], ids, copy, 0),
    }
    for drawn in names.values():
        assert len(np.unique(drawn)) == len(ids)
        # Spread over all of what is possible.
        assert (np.bincount(drawn >> 36, minlength=16) > 500).all()
        for column in (ids, np.roll(drawn, 1)):
            assert abs(np.corrcoef(drawn, column)[0, 1]) < 0.03
        assert abs(np.corrcoef(drawn[::2], drawn[1::2])[0, 1]) < 0.04
    for one, two in pairwise([*names.values(), names["one"]]):
        assert len(np.intersect1d(one, two)) == 0
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.03


@given(sets_of_ids, st.integers(1, 3), st.data())
@settings(max_examples=50, deadline=None)
def test_names_that_collide_are_drawn_again_in_the_order_of_ids(ids, number, data):
    """Against one name at a time, in the order that the docstring states, with few bits."""
    bits = 8
    pairs = [(one, copy) for one in ids.tolist() for copy in range(number)]
    shuffled = data.draw(st.permutations(pairs))
    given_ids, copy = np.array(shuffled, dtype=np.int64).T
    names = dict(zip(shuffled, pseudonyms(SECRET, given_ids, copy, 5, bits).tolist(), strict=True))
    assert len(set(names.values())) == len(pairs)
    settled, waiting, attempt = {}, pairs, 0
    while waiting:
        later = []
        for one, number_of_copy in waiting:
            name = drawn_name(one, number_of_copy, attempt, bits)
            if name in settled.values():
                later.append((one, number_of_copy))
            else:
                settled[one, number_of_copy] = name
        waiting, attempt = later, attempt + 1
    assert names == settled


def drawn_name(one, copy, attempt, bits):
    key = derive_key(SECRET, "pseudonym", 5, copy, attempt)
    hashed = hashlib.blake2b(one.to_bytes(8, "little"), digest_size=8, key=key).digest()
    return int.from_bytes(hashed, "little") >> (64 - bits)


def test_too_many_names_are_an_error():
    with pytest.raises(ValueError, match="9 names of 4 bits"):
        pseudonyms(SECRET, np.arange(9), np.zeros(9, dtype=np.int64), 0, bits=4)


# What is refused.


def test_bad_input_is_refused():
    ids, labels = np.arange(3), np.array([0, 2, 7])
    with pytest.raises(UserError, match=r"^copies='thrice' is not possible; allowed: replicate, "):
        assign("thrice", None, labels, ids, MAP, SECRET, 0)
    with pytest.raises(UserError, match=r"^labels of 1 samples are not among"):
        assign("partition", None, np.array([0, 2, 8]), ids, MAP, SECRET, 0)
    with pytest.raises(ValueError, match="generation -1"):
        assign("partition", None, labels, ids, MAP, SECRET, -1)
    with pytest.raises(ValueError, match="once"):
        assign("partition", None, labels, np.array([1, 1, 2]), MAP, SECRET, 0)
    with pytest.raises(ValueError, match="3 labels and 2 ids"):
        assign("partition", None, labels, ids[:2], MAP, SECRET, 0)
    for smashed in (None, np.zeros((2, 4), np.float32)):
        with pytest.raises(ValueError, match="every record"):
            assign("modes", smashed, labels, ids, MAP, SECRET, 0)
