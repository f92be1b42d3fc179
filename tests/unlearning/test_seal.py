"""A checksum shows damage; a key shows every change by those who do not have it."""

import hashlib
import hmac
import stat

import pytest

from split_unlearning.unlearning.seal import Seal
from tests.refusals import refusal


def test_without_a_key_it_is_a_checksum():
    assert Seal().of("text") == hashlib.sha256(b"text").hexdigest()
    Seal().make()


def test_with_a_key_it_is_an_hmac_under_it(tmp_path):
    path = tmp_path / "keys" / "run.key"
    Seal(path).make()
    key = bytes.fromhex(path.read_text(encoding="ascii"))
    assert Seal(path).of("text") == hmac.digest(key, b"text", "sha256").hex()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Seal(path).make()
    assert bytes.fromhex(path.read_text(encoding="ascii")) == key
    assert [one.name for one in path.parent.iterdir()] == ["run.key"]


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ü" * 64])
def test_what_is_no_key_is_refused(text, tmp_path):
    path = tmp_path / "run.key"
    path.write_text(text, encoding="utf-8")
    assert "run.key is no key" in refusal(Seal(path).of, "text")


def test_the_other_form_is_refused(tmp_path):
    keyed = Seal(tmp_path / "run.key")
    assert Seal().take({"sha256": "ab"}, "here") == "ab"
    assert keyed.take({"hmac-sha256": "ab"}, "here") == "ab"
    assert "here is sealed with a key" in refusal(Seal().take, {"hmac-sha256": "ab"}, "here")
    assert "here is not sealed with" in refusal(keyed.take, {"sha256": "ab"}, "here")
    for seal in (Seal(), keyed):
        with pytest.raises(KeyError):
            seal.take({}, "here")
