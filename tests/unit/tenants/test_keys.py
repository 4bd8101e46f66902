"""Keys derived from the secret: rotation, and what a lost secret says."""

from __future__ import annotations

import pytest

from app.settings import Settings, SettingsError
from tenants.errors import CannotDecrypt
from tenants.keys import ID_BYTES, Keys

OLD, NEW = "the old secret, long enough for all", "the new secret, long enough for all"


def keys(secret: str, previous: str = "") -> Keys:
    return Keys(Settings(secret=secret, secret_previous=previous))


def test_a_text_is_opened_in_its_context_only():
    sealed = keys(OLD).encrypt(b"hunter2", "script/a/TOKEN")
    assert b"hunter2" not in sealed
    assert keys(OLD).decrypt(sealed, "script/a/TOKEN") == b"hunter2"
    with pytest.raises(CannotDecrypt, match="belongs to another object"):
        keys(OLD).decrypt(sealed, "script/b/TOKEN")


def test_the_same_text_is_never_sealed_twice_alike():
    one = keys(OLD)
    assert one.encrypt(b"", "x") != one.encrypt(b"", "x")


@pytest.mark.parametrize("at", [0, 1, 9, 21, -1])
def test_damage_is_noticed(at):
    sealed = bytearray(keys(OLD).encrypt(b"payload", "x"))
    sealed[at] ^= 1
    with pytest.raises(CannotDecrypt):
        keys(OLD).decrypt(bytes(sealed), "x")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" * 20])
def test_something_too_short_is_no_ciphertext(sealed):
    with pytest.raises(CannotDecrypt, match="damaged"):
        keys(OLD).decrypt(sealed, "x")


def test_while_rotating_the_previous_secret_opens_and_the_new_one_seals():
    sealed = keys(OLD).encrypt(b"value", "x")
    both = keys(NEW, OLD)
    assert both.decrypt(sealed, "x") == b"value"
    assert both.needs_rewrite(sealed)
    again = both.encrypt(b"value", "x")
    assert not both.needs_rewrite(again)
    assert [Keys.key_of(text) for text in (again, sealed)] == both.key_ids
    assert not keys(NEW).needs_rewrite(sealed), "the secret that opens it is gone: it cannot be encrypted anew"
    assert keys(NEW).decrypt(again, "x") == b"value"


def test_a_lost_secret_is_called_that():
    sealed = keys(OLD).encrypt(b"value", "x")
    with pytest.raises(CannotDecrypt, match=r"encrypted with a secret that is gone .*MILLRACE_SECRET_PREVIOUS"):
        keys(NEW).decrypt(sealed, "x")


def test_a_token_is_stored_under_the_current_secret_and_found_under_both():
    token = "sk_whatever"
    assert keys(NEW, OLD).token_hashes(token) == [*keys(NEW).token_hashes(token), *keys(OLD).token_hashes(token)]
    assert keys(NEW).token_hashes(token) != keys(OLD).token_hashes(token)
    assert [hash[:ID_BYTES] for hash in keys(NEW, OLD).token_hashes(token)] == keys(NEW, OLD).key_ids


def test_every_purpose_has_its_own_key():
    both = keys(NEW, OLD)
    assert len({*both.derive("jwt"), *both.derive("cursor")}) == 4
    assert both.derive("jwt")[0] == keys(NEW).derive("jwt")[0]
    assert all(len(key) == 32 for key in both.derive("jwt"))


@pytest.mark.parametrize(("secret", "previous"), [("", ""), ("x" * 31, ""), (NEW, "short")])
def test_a_short_secret_is_refused(secret, previous):
    with pytest.raises(SettingsError, match="32 bytes"):
        keys(secret, previous)
