"""Ids in the spellings of the faces, and back."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tenants.spellings import (
    EXECUTION,
    PREFIXES,
    STEPS_PER_INSTANCE,
    WORKFLOW,
    WORKFLOW_EXECUTION,
    parse_key,
    parse_no,
    parse_ulid,
    parse_uuid,
    spell,
    split_step_no,
    step_no,
    ulid_text,
)

KEY = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
"""A UUIDv7 whose base32 form other implementations publish as their example."""
ULID = "01H455VB4PEX5VSKNK084SN02Q"


def test_the_text_is_the_one_others_make():
    assert ulid_text(KEY) == ULID
    assert parse_ulid(ULID) == KEY


@given(some.uuids(), some.sampled_from(PREFIXES))
def test_every_spelling_reads_back_in_any_case(key: UUID, prefix: str):
    text = spell(prefix, key)
    assert text == prefix + text[len(prefix) :].upper()
    assert parse_key(text, prefix) == parse_key(text.lower(), prefix) == parse_key(text.upper(), prefix) == key
    assert parse_key(str(key), prefix) == parse_key(key.hex.upper(), prefix) == key


@given(some.uuids(), some.uuids())
def test_texts_sort_as_their_keys(one: UUID, other: UUID):
    assert (one < other) == (ulid_text(one) < ulid_text(other))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ULID[1:],
        ULID + "0",
        "8" + ULID[1:],
        "I" + ULID[1:],
        ULID[:-1] + "U",
        ULID[:-1] + "l",
        ULID[:-1] + "\n",
        "٣" * 26,
    ],
)
def test_nothing_else_is_a_ulid(text: str):
    assert parse_ulid(text) is None


def test_a_prefix_belongs_to_one_kind():
    assert parse_key(spell(WORKFLOW_EXECUTION, KEY), WORKFLOW) is None
    assert parse_key(spell(EXECUTION, KEY), WORKFLOW) is None
    assert parse_key(ULID, EXECUTION) is None


@pytest.mark.parametrize(
    "text", ["", "x", f"{{{KEY}}}", f"urn:uuid:{KEY}", f"{KEY}\n", KEY.hex[:-1], "0189-0a5dac96774bbcceb302099a8057"]
)
def test_nothing_else_is_a_uuid(text: str):
    assert parse_uuid(text) is None


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), (str(2**63 - 1), 2**63 - 1)])
def test_numbers(text: str, number: int):
    assert parse_no(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "+1", "1.0", " 1", "١", str(2**63), "9" * 20])
def test_no_numbers(text: str):
    assert parse_no(text) is None


@given(some.integers(1, 2**40), some.integers(0, STEPS_PER_INSTANCE - 1))
def test_the_number_of_a_step_names_instance_and_position(no: int, position: int):
    assert split_step_no(step_no(no, position)) == (no, position)


def test_positions_beyond_the_last_number_are_refused():
    with pytest.raises(ValueError):
        step_no(1, STEPS_PER_INSTANCE)
