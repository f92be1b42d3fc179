"""Draws that follow from a secret: the same for who has it, unlike anything for who has not."""

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from split_unlearning.clients.label_privacy.secrets import derive_key, generator, numbers, uniforms
from split_unlearning.foundations.errors import UserError

SECRET = bytes(range(32))
sets_of_ids = st.sets(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20).map(
    lambda ids: np.array(sorted(ids), dtype=np.int64)
)


def test_a_key_is_hkdf_as_rfc_5869_writes_it():
    extracted = hmac.new(bytes(32), SECRET, hashlib.sha256).digest()
    info = b'["noise", 3, "4"]'
    expanded = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()
    assert derive_key(SECRET, "noise", 3, "4") == expanded


def test_a_key_is_of_one_purpose_and_one_secret():
    keys = {
        derive_key(secret, *purpose)
        for secret in (SECRET, SECRET + b"\0", SECRET[:16])
        for purpose in ((), ("a",), ("a", 1), ("a", "1"), ("a1",), ("a", 1, 1), ("a", 11))
    }
    assert len(keys) == 21
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize("secret", [b"", b"fifteen bytes.."])
def test_a_short_secret_is_refused_and_not_shown(secret):
    with pytest.raises(UserError, match=r"^secret='\d+ bytes' is not possible; allowed: at least"):
        derive_key(secret)


def test_a_generator_follows_from_secret_and_purpose():
    draws = generator(SECRET, "a", 1).integers(0, 2**62, 9).tolist()
    assert generator(SECRET, "a", 1).integers(0, 2**62, 9).tolist() == draws
    assert generator(SECRET, "a", 2).integers(0, 2**62, 9).tolist() != draws
    assert generator(SECRET[::-1], "a", 1).integers(0, 2**62, 9).tolist() != draws


@given(sets_of_ids, st.data())
@settings(deadline=None)
def test_the_draws_of_an_id_depend_on_no_other(ids, data):
    some = np.array(data.draw(st.lists(st.sampled_from(range(len(ids))), min_size=1)))
    assert (uniforms(SECRET, ids, 5, "p")[some] == uniforms(SECRET, ids[some], 5, "p")).all()
    assert (numbers(SECRET, ids, "p")[some] == numbers(SECRET, ids[some], "p")).all()
    # A longer row begins with the shorter one.
    assert (uniforms(SECRET, ids, 3, "p") == uniforms(SECRET, ids, 5, "p")[:, :3]).all()


def test_uniforms_are_the_keystream_of_chacha20():
    nonce = bytes(8) + b"\7" + bytes(7)
    cipher = Cipher(algorithms.ChaCha20(derive_key(SECRET, "p", 2), nonce), mode=None)
    words = np.frombuffer(cipher.encryptor().update(bytes(80)), dtype="<u8")
    expected = [((int(word) >> 12) * 2 + 1) / 2**53 for word in words]
    assert uniforms(SECRET, np.array([7]), 10, "p", 2)[0].tolist() == expected


def test_uniforms_are_uniform_and_independent_of_each_other():
    ids = np.arange(2000)
    drawn = uniforms(SECRET, ids, 50, "noise")
    assert drawn.shape == (2000, 50)
    assert (drawn > 0).all()
    assert (drawn < 1).all()
    assert len(np.unique(drawn)) == drawn.size
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    others = [
        uniforms(SECRET, ids + 1, 50, "noise"),
        uniforms(SECRET, ids, 50, "other"),
        uniforms(SECRET[::-1], ids, 50, "noise"),
        np.roll(drawn, 1, axis=0),
        np.roll(drawn, 1, axis=1),
    ]
    for other in others[1:]:
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.01
    assert (others[0][:-1] == drawn[1:]).all()


def test_the_ends_are_never_reached(monkeypatch):
    """Whatever the keystream: all bits 0, and all bits 1."""

    class Stream:
        def __init__(self, *_, mode):
            pass

        def encryptor(self):
            return self

        def update_into(self, zeros, row):
            half = len(zeros) // 2
            row[:] = bytes(half) + b"\xff" * half

    monkeypatch.setattr("split_unlearning.clients.label_privacy.secrets.Cipher", Stream)
    assert uniforms(SECRET, np.array([1]), 2, "p").tolist() == [[2.0**-53, 1 - 2.0**-53]]


def test_no_ids_no_draws():
    none = np.array([], dtype=np.int64)
    assert uniforms(SECRET, none, 4, "p").shape == (0, 4)
    assert uniforms(SECRET, np.arange(2), 0, "p").shape == (2, 0)
    assert numbers(SECRET, none, "p").shape == (0,)
