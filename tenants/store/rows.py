"""Rows as the structs they are handed out as."""

from __future__ import annotations

from typing import Any, TypeVar

R = TypeVar("R")


def first_as(kind: type[R], row: dict[str, Any] | None) -> R | None:
    """The row as a `kind`; None for none."""
    return None if row is None else kind(**row)
