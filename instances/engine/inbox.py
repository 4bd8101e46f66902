"""Outside facts a run has not consumed yet, matched to what waits for them: first in, first out per type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Fact:
    """An inbox row. `payload` is JSON text."""

    no: int
    type: str
    payload: str | None
    at: datetime


class Inbox:
    """The unread rows of one run, in the order they were stored."""

    __slots__ = ("_facts", "_taken")

    def __init__(self) -> None:
        self._facts: list[Fact] = []
        self._taken: set[int] = set()

    def refresh(self, facts: list[Fact]) -> None:
        """Take over what the database holds. Rows taken here and not yet flushed stay taken."""
        self._taken &= {fact.no for fact in facts}
        self._facts = [fact for fact in facts if fact.no not in self._taken]

    def take(
        self,
        types: tuple[str, ...],
        *,
        before: datetime | None = None,
        accepts: Callable[[str | None], bool] | None = None,
    ) -> Fact | None:
        """The oldest fact of one of `types`, stored not later than `before`, that `accepts` does not turn down."""
        for position, fact in enumerate(self._facts):
            if fact.type not in types or (before is not None and fact.at > before):
                continue
            if accepts is None or accepts(fact.payload):
                del self._facts[position]
                self._taken.add(fact.no)
                return fact
        return None

    def __bool__(self) -> bool:
        return bool(self._facts)
