"""A certificate: as it was signed, by whom it was signed, or refused."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.certificate import check, fingerprint, new_key, sign

KEY = new_key()
CLAIMS = {
    "holds": True,
    "first_difference": None,
    "requests": [{"text": "class:ü", "samples": {"0": 142, "1": 3}}, {"text": "client:1"}],
    "digests": {"kept": "ab" * 32, "reference": "ab" * 32},
    "seconds": 0.25,
}
SIGNED = sign(CLAIMS, KEY)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def refusal(call, *arguments):
    """Return the one line with which a call is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    message = str(refused.value)
    assert "\n" not in message
    return message


def places(value, place=()):
    """Yield the way to every value in a certificate."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*place, key)
            yield from places(inner, (*place, key))


def copied(certificate, place):
    """Return a copy of a certificate, what holds a place in it, and its key there."""
    copy = json.loads(json.dumps(certificate))
    holder = copy
    for key in place[:-1]:
        holder = holder[key]
    return copy, holder, place[-1]


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_what_was_signed_is_as_it_was_signed(claims):
    signed = sign(claims, KEY)
    assert (
        signed.items()
        >= {
            name: value for name, value in claims.items() if name not in ("signature", "public_key")
        }.items()
    )
    check(signed)
    check(signed, KEY)
    # Also when it was written down and read again, in another order.
    read = json.loads(json.dumps(signed, indent=2))
    check(dict(sorted(read.items(), reverse=True)), KEY)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(places(SIGNED), key=str)), VALUES)
def test_any_other_value_anywhere_is_found(place, value):
    changed, holder, key = copied(SIGNED, place)
    if json.dumps(holder[key], sort_keys=True) == json.dumps(value, sort_keys=True):
        return
    holder[key] = value
    assert "changed" in refusal(check, changed)
    assert "changed" in refusal(check, changed, KEY)


@pytest.mark.parametrize("place", list(places(SIGNED)), ids=str)
def test_anything_that_is_left_out_is_found(place):
    changed, holder, key = copied(SIGNED, place)
    del holder[key]
    assert "changed" in refusal(check, changed)


def test_a_claim_more_is_found():
    assert "changed" in refusal(check, {**SIGNED, "by": "me"})
    changed, holder, _ = copied(SIGNED, ("requests", 0, "samples", "0"))
    holder["7"] = 1
    assert "changed" in refusal(check, changed)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["signature", "public_key"]),
    st.integers(0, 63),
    st.sampled_from("0123456789abcdefABCDEF xü"),
)
def test_any_other_character_of_key_or_signature_is_found(name, place, character):
    text = SIGNED[name]
    changed = {**SIGNED, name: text[:place] + character + text[place + 1 :]}
    if changed != SIGNED:
        assert "changed" in refusal(check, changed)


@pytest.mark.parametrize("certificate", [{}, [], "text", None, 3])
def test_what_is_no_certificate_is_refused(certificate):
    refusal(check, certificate)


def test_one_that_somebody_else_signed_is_told_apart_by_the_key():
    forged = sign({**CLAIMS, "holds": False}, new_key())
    check(forged)
    assert "not signed with the key" in refusal(check, forged, KEY)
    assert fingerprint(forged) != fingerprint(SIGNED)
    assert fingerprint(sign({}, KEY)) == fingerprint(SIGNED)
    assert len(fingerprint(SIGNED)) == 64


def test_a_name_of_its_own_among_the_claims_does_not_stand():
    signed = sign({**CLAIMS, "public_key": "mine"}, KEY)
    check(signed, KEY)
    assert signed["public_key"] == SIGNED["public_key"]


def test_every_key_is_a_new_one():
    assert len({new_key() for _ in range(5)}) == 5
    assert isinstance(serialization.load_pem_private_key(KEY, None), Ed25519PrivateKey)


def pem(private, encryption=None):
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (b"", "cannot be read"),
        (KEY[:40], "cannot be read"),
        (b"\xff" * 100, "cannot be read"),
        (
            pem(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"secret")),
            "cannot be read",
        ),
        (pem(ec.generate_private_key(ec.SECP256R1())), "no Ed25519 key"),
    ],
    ids=["empty", "cut", "garbage", "encrypted", "elliptic"],
)
def test_a_key_that_is_none_is_refused(key, why):
    assert why in refusal(sign, CLAIMS, key)
    assert why in refusal(check, SIGNED, key)
