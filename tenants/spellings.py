"""One object, several spellings: how faces write the ids of workflows and instances, and read them back.

Every workflow and every instance has one UUID and one decimal number. A face renders either; rendering and parsing need
no look-up. *ULID text* is the 26-character Crockford base32 form of the 128 bits, upper case when written, any case
when read.
"""

from __future__ import annotations

import re
from uuid import UUID

WORKFLOW = "wf_"
EXECUTION = "exec_"
WORKFLOW_EXECUTION = "wf_exec_"
REQUEST = "req_"
PREFIXES = (WORKFLOW, EXECUTION, WORKFLOW_EXECUTION, REQUEST)

STEPS_PER_INSTANCE = 1 << 16
"""Numbers one instance has for its steps, see :func:`step_no`."""
LARGEST_NO = (1 << 63) - 1

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE | re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE | re.ASCII)
_NO = re.compile(r"[0-9]{1,19}", re.ASCII)


def ulid_text(key: UUID) -> str:
    """The 26 characters of a UUID, upper case.

    >>> ulid_text(UUID(int=0))
    '00000000000000000000000000'
    """
    number = key.int
    parts = [number >> shift & 0x3FFFFFFF for shift in (120, 90, 60, 30, 0)]
    return "".join([f"{_PAIRS[part >> 20]}{_PAIRS[part >> 10 & 1023]}{_PAIRS[part & 1023]}" for part in parts])[4:]


def parse_ulid(text: str) -> UUID | None:
    """The UUID of a ULID text, in any case; None for anything else (a first digit above 7 has more than 128 bits)."""
    if not _ULID.fullmatch(text):
        return None
    number = 0
    for letter in text.upper():
        number = number << 5 | _VALUES[letter]
    return UUID(int=number)


def parse_uuid(text: str) -> UUID | None:
    """The UUID spelled with or without hyphens, in any case; None for anything else."""
    return UUID(text) if _UUID.fullmatch(text) else None


def spell(prefix: str, key: UUID) -> str:
    """The id a face shows: a member of `PREFIXES` and the ULID text.

    >>> spell(EXECUTION, UUID(int=1))
    'exec_00000000000000000000000001'
    """
    return prefix + ulid_text(key)


def parse_key(text: str, prefix: str) -> UUID | None:
    """The key `text` spells in a face whose ids begin with `prefix`: its own form, or the bare UUID; else None.

    The prefix is read in any case, too.
    """
    if text[: len(prefix)].lower() == prefix:
        return parse_ulid(text[len(prefix) :])
    return parse_uuid(text)


def parse_no(text: str) -> int | None:
    """A decimal number as faces show `no`; None when it is not one, or larger than any there can be."""
    number = int(text) if _NO.fullmatch(text) else 0
    return number if 0 < number <= LARGEST_NO else None


def step_no(no: int, position: int) -> int:
    """The number of a step: that of its instance and its position (from 0) in one.

    >>> step_no(1, 2)
    65538
    """
    if not 0 <= position < STEPS_PER_INSTANCE:
        raise ValueError("no instance has so many steps")
    return no * STEPS_PER_INSTANCE + position


def split_step_no(number: int) -> tuple[int, int]:
    """The number of the instance, and the position of the step in it."""
    return divmod(number, STEPS_PER_INSTANCE)
