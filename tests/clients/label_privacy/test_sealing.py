"""What the server relays and cannot open."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from split_unlearning.clients.label_privacy.sealing import (
    SEALED_BYTES,
    SECRET_BYTES,
    agreed_key,
    public_key,
    seal,
    unseal,
)

secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@given(secrets, st.binary(max_size=200))
def test_who_knows_the_key_reads_what_was_sealed(key, text):
    sealed = seal(text, key)
    assert unseal(sealed, key) == text
    assert len(sealed) == len(text) + SEALED_BYTES


@given(secrets, secrets)
def test_two_parties_agree_on_a_key_and_a_third_does_not(one, other):
    third = os.urandom(SECRET_BYTES)
    key = agreed_key(one, public_key(other))
    assert key == agreed_key(other, public_key(one))
    # What the server has: both public keys, and keys of its own.
    assert key not in (agreed_key(third, public_key(one)), agreed_key(third, public_key(other)))
    assert key not in (public_key(one), public_key(other))


def test_another_key_opens_nothing():
    with pytest.raises(ValueError, match="cannot be opened"):
        unseal(seal(b"labels", bytes(32)), b"\1" * 32)


@pytest.mark.parametrize("changed", [0, 11, 12, 17, -1])
def test_a_changed_byte_is_noticed(changed):
    sealed = bytearray(seal(b"labels", bytes(32)))
    sealed[changed] ^= 1
    with pytest.raises(ValueError, match="changed on the way"):
        unseal(bytes(sealed), bytes(32))


def test_what_is_cut_short_is_noticed():
    for length in (0, 5, 12, 20):
        with pytest.raises(ValueError, match="cannot be opened"):
            unseal(seal(b"labels", bytes(32))[:length], bytes(32))


def test_the_same_text_looks_different_each_time_in_every_byte():
    texts = [bytes(40), b"\xff" * 40]
    sealed = np.array([list(seal(texts[n % 2], bytes(32))) for n in range(3000)], dtype=np.uint8)
    means = sealed.mean(axis=0)
    # Uniform bytes have the mean 127.5 and the deviation 73.9; nothing shows which text it was.
    assert np.abs(means - 127.5).max() < 6 * 73.9 / np.sqrt(3000)
    difference = sealed[0::2].mean(axis=0) - sealed[1::2].mean(axis=0)
    assert np.abs(difference).max() < 6 * 73.9 * np.sqrt(2 / 1500)
