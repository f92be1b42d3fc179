"""Salted hashes: enough to leave samples out, too little to list them."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.unlearning.salted import among, new_salt, salted

IDS = st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=20).map(
    lambda ids: np.array(ids, dtype=np.int64)
)


def test_a_salt_is_random_bytes():
    salts = [new_salt() for _ in range(20)]
    assert {(one.dtype, tuple(one.shape)) for one in salts} == {(torch.uint8, (16,))}
    assert len({tuple(one.tolist()) for one in salts}) == 20


def test_a_salt_is_not_drawn_from_what_training_draws_from():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    first = new_salt()
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()) == before
    torch.manual_seed(0)
    assert not torch.equal(first, new_salt())


def test_a_hash_is_sha_256_of_salt_and_id():
    salt = new_salt()
    (row,) = salted(np.array([258], dtype=np.int64), salt)
    expected = hashlib.sha256(bytes(salt.tolist()) + bytes([2, 1, 0, 0, 0, 0, 0, 0])).digest()
    assert bytes(row.tolist()) == expected


@settings(deadline=None)
@given(IDS, st.data())
def test_the_hashes_of_some_ids_mean_those_and_no_others(ids, data):
    meant = data.draw(st.lists(st.sampled_from(ids.tolist()), unique=True)) if len(ids) else []
    salt = new_salt()
    hashes = salted(np.array(meant, dtype=np.int64), salt)
    assert hashes.dtype == torch.uint8
    assert hashes.shape == (len(meant), 32)
    found = among(ids, hashes, salt)
    assert found.dtype == np.int64
    # In the order of the ids that were asked about.
    assert found.tolist() == [one for one in ids.tolist() if one in meant]


@settings(deadline=None, max_examples=30)
@given(IDS)
def test_another_salt_means_nothing(ids):
    salt = new_salt()
    assert len(among(ids, salted(ids, salt), new_salt())) == 0
    assert among(ids, salted(ids, salt), salt).tolist() == ids.tolist()


@pytest.mark.parametrize("named", [[], [3, 4]])
def test_ids_that_are_not_there_are_not_found(named):
    salt = new_salt()
    hashes = salted(np.array(named, dtype=np.int64), salt)
    assert among(np.array([1, 2], dtype=np.int64), hashes, salt).tolist() == []
    assert among(np.empty(0, dtype=np.int64), hashes, salt).tolist() == []


def test_no_id_is_in_the_hashes():
    ids = np.arange(1000, dtype=np.int64) + 10**15
    written = salted(ids, new_salt()).numpy().tobytes()
    assert not [one for one in ids.tolist() if one.to_bytes(8, "little")[:7] in written]
