"""The text of an API token."""

from __future__ import annotations

import math
import os
import random

import pytest

from app.errors import InvalidRequest
from tenants.token_text import ALPHABET, RANDOM_CHARACTERS, check_adopted, checksum, intact, new_token


def test_a_token_has_its_shape_and_enough_randomness():
    token = new_token(os.urandom)
    assert token.startswith("sk_")
    assert 40 <= len(token) <= 80
    assert set(token[3:]) <= set(ALPHABET)
    assert RANDOM_CHARACTERS * math.log2(len(ALPHABET)) >= 160
    assert len({new_token(os.urandom) for _ in range(100)}) == 100


def test_every_character_is_equally_likely():
    drawn = "".join(new_token(random.Random(1).randbytes)[3:-6] for _ in range(1))
    assert drawn == new_token(random.Random(1).randbytes)[3:-6]
    source = random.Random(7).randbytes
    counts = dict.fromkeys(ALPHABET, 0)
    for _ in range(2000):
        for character in new_token(source)[3:-6]:
            counts[character] += 1
    assert min(counts.values()) > 850  # 1,000 each on average
    assert max(counts.values()) < 1150


def test_bytes_that_would_favour_some_characters_are_thrown_away():
    supply = iter([bytes([255] * RANDOM_CHARACTERS), bytes(range(RANDOM_CHARACTERS))])
    assert new_token(lambda n: next(supply))[3:-6] == ALPHABET[:RANDOM_CHARACTERS]


def test_the_checksum_finds_every_single_wrong_character():
    token = new_token(random.Random(3).randbytes)
    assert intact(token)
    for at in range(3, len(token)):
        for other in "0aZ":
            if other != token[at]:
                assert not intact(token[:at] + other + token[at + 1 :])
    assert not intact(token[:-1])
    assert not intact(token + "0")
    assert not intact("")
    assert not intact("sk_" + checksum(""))


@pytest.mark.parametrize("text", ["sk_" + "x" * 17, "sk_" + "x" * 197, "sk_with-any.visible/ASCII"])
def test_a_developers_own_token_is_accepted(text):
    assert check_adopted(text) == text


@pytest.mark.parametrize("text", ["", "sk_short", "sk_" + "x" * 16, "sk_" + "x" * 198, "pk_" + "x" * 30, "sk_a b" * 6])
def test_a_developers_own_token_is_refused(text):
    with pytest.raises(InvalidRequest, match="a token must be sk_ and more"):
        check_adopted(text)
