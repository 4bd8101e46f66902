"""Cursors: read where they were given out, refused everywhere else."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.errors import InvalidRequest
from app.settings import Settings
from instances.search.cursors import PREFIX, Cursors
from tenants.keys import Keys


def cursors(secret: str = "s" * 32, previous: str = "") -> Cursors:
    return Cursors(Keys(Settings(secret=secret, secret_previous=previous)))


OURS = cursors()
LIST = b"account 1, status=success"


@given(some.uuids())
def test_a_cursor_reads_back_in_its_own_list(key: UUID):
    text = OURS.write(key, LIST)
    assert text.startswith(PREFIX) and OURS.read(text, LIST) == key
    with pytest.raises(InvalidRequest):
        OURS.read(text, b"account 2, status=success")


def test_other_secrets_and_rotation():
    text = OURS.write(UUID(int=7), LIST)
    with pytest.raises(InvalidRequest):
        cursors("t" * 32).read(text, LIST)
    assert cursors("t" * 32, "s" * 32).read(text, LIST) == UUID(int=7)


@given(some.text(max_size=80))
def test_made_up_ones_are_refused(text: str):
    for made_up in (text, PREFIX + text):
        with pytest.raises(InvalidRequest, match="after must"):
            OURS.read(made_up, LIST, "after")


def test_every_changed_character_shows():
    text = OURS.write(UUID(int=1 << 100), LIST)
    for place in range(len(PREFIX), len(text) - 1):
        other = "A" if text[place] != "A" else "B"
        with pytest.raises(InvalidRequest):
            OURS.read(text[:place] + other + text[place + 1 :], LIST)
