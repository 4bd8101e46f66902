"""Whose pieces of a stream they are: in the journal, a stream is some of the entries its attempt has written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces one attempt of a step has stored."""

    run: int
    name: str
    count: int
    attempt: int
