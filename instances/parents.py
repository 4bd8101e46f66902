"""Which step of another instance an instance is a child of, as its row says: `name-count`, `rollback/` before it of one
that undoes something.
"""

from __future__ import annotations

from dataclasses import dataclass

from instances.runtimes.protocol import StepKey, StepKind

_ROLLBACK = "rollback/"


@dataclass(frozen=True, slots=True)
class ParentStep:
    """The step, and the instance it is of. `loops`: it runs once per item, this time for item number `key.count`."""

    workflow: str
    """Its handle."""
    transaction_id: str
    key: StepKey
    loops: bool


def spelled(step: StepKey) -> str:
    """A step as children's rows name it. Only nodes of documents have children: their ids have no slash."""
    return f"{_ROLLBACK}{step.counted}" if step.kind is StepKind.ROLLBACK else step.counted


def read(text: str) -> StepKey:
    """The step of which `text` is the spelling."""
    name, _, count = text.removeprefix(_ROLLBACK).rpartition("-")
    return StepKey(StepKind.ROLLBACK if text.startswith(_ROLLBACK) else StepKind.DO, name, int(count))
