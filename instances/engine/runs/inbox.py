"""Outside facts a run has not consumed yet, matched to what waits for them: first in, first out per type."""

from __future__ import annotations

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

    def __init__(self, facts: list[Fact]) -> None:
        self._facts = facts
        self._taken: set[int] = set()

    def refresh(self, facts: list[Fact]) -> None:
        """Take over what the database holds. Rows taken here and not yet flushed stay taken."""
        self._taken &= {fact.no for fact in facts}
        self._facts = [fact for fact in facts if fact.no not in self._taken]

    def unread(self, type: str, *, before: datetime) -> list[Fact]:
        """Facts of a type, stored not later than `before`, the oldest first."""
        return [fact for fact in self._facts if fact.type == type and fact.at <= before]

    def take(self, types: tuple[str, ...]) -> Fact | None:
        """The oldest fact of one of `types`."""
        fact = next((fact for fact in self._facts if fact.type in types), None)
        if fact is not None:
            self.remove(fact)
        return fact

    def remove(self, fact: Fact) -> None:
        """An unread fact is taken."""
        self._facts.remove(fact)
        self._taken.add(fact.no)

    def __bool__(self) -> bool:
        return bool(self._facts)
