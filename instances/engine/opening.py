"""From claimed rows to runs that can be driven: their program, their context, and what their journal says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from instances.engine import store
from instances.engine.held_runs import RunId
from instances.engine.programs import Programs
from instances.engine.runs.held import Held
from instances.engine.runs.inbox import Fact
from instances.engine.runs.recorded import Recorded, fold
from instances.lifecycle import TriggerSource
from instances.runtimes.protocol import Program, RunContext, StoredVersion
from tenants.database import Database
from tenants.limits import Limits

LimitsOf = Callable[[Collection[UUID]], Awaitable[Mapping[UUID, Limits]]]
"""What accounts allow their instances."""

REPLAY_BATCH = 50
"""Journals read at once."""
_UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Opened:
    """A run with what it takes to drive it."""

    held: Held
    program: Program
    past: Recorded
    facts: list[Fact]


class Opener:
    """Opens the runs of one worker."""

    def __init__(self, db: Database, programs: Programs, limits_of: LimitsOf | None) -> None:
        """`limits_of` tells what accounts allow their instances; without it nothing is limited."""
        self._db = db
        self._programs = programs
        self._limits_of = limits_of

    async def open(self, rows: Sequence[Any], launch: Callable[[Opened], None]) -> list[RunId]:
        """Open claimed rows, several at once; `launch` gets each run as soon as it can be driven.

        Returns the runs whose version cannot be opened here.
        """
        await self._programs.load({(row["account_id"], row["version_key"]) for row in rows})
        limits = await self._limits_of({row["account_id"] for row in rows}) if self._limits_of else {}
        closed: list[RunId] = []
        woken: list[tuple[Any, Held, Program]] = []
        for row in rows:
            found = self._programs.get(row["account_id"], row["version_key"])
            if found is None:
                closed.append((row["account_id"], row["key"], row["epoch"]))
                continue
            program, version = found
            allowed = limits.get(row["account_id"], _UNLIMITED)
            held = _held(row, version, await self._input(row), allowed)
            if row["seq"] <= 1 and row["signal"] == 0:
                launch(Opened(held, program, Recorded(), []))  # it has no past, and nobody told it anything
            else:
                woken.append((row, held, program))
        for at in range(0, len(woken), REPLAY_BATCH):
            await self._wake(woken[at : at + REPLAY_BATCH], launch)
        return closed

    async def _wake(self, woken: Sequence[tuple[Any, Held, Program]], launch: Callable[[Opened], None]) -> None:
        """Open runs that have a past."""
        ids = [(row["account_id"], row["key"]) for row, _, _ in woken]
        froms = [row["live_from"] for row, _, _ in woken]
        journals = await store.journals(self._db.engine, [(*id, first) for id, first in zip(ids, froms, strict=True)])
        inboxes = await store.inboxes(self._db.engine, ids)
        for id, (_, held, program) in zip(ids, woken, strict=True):
            launch(Opened(held, program, fold(journals[id]), [_fact(row) for row in inboxes[id]]))

    async def _input(self, row: Any) -> str | None:
        """The instance's parameters; a claim leaves large ones to be read here."""
        if row["input"] is None and row["input_bytes"]:
            return await self._db.engine.fetchval(store.INPUT, row["account_id"], row["key"])
        return row["input"]


def _held(row: Any, version: StoredVersion, input: str | None, limits: Limits) -> Held:
    trigger: dict[str, Any] = {"source": TriggerSource(row["trigger_source"]).wire}
    if row["trigger_detail"]:
        trigger.update(msgspec.json.decode(row["trigger_detail"]))
    context = RunContext(
        row["account_id"],
        row["key"],
        row["instance_id"],
        row["run"],
        row["workflow_key"],
        version.handle,
        version.workspace_id,
        row["version_key"],
        input,
        row["created_at"],
        trigger,
        row["triggered_by"],
        row["depth"],
        min(version.step_limit, limits.steps_max),
        limits.state_bytes,
        limits.subrequests,
        trigger.get("timeout"),
    )
    return Held(
        context,
        row["epoch"],
        row["signal"],
        row["want"],
        row["takeovers"],
        row["parent_key"],
        row["woken_at"],
        version.language,
    )


async def read_facts(db: Database, account_id: UUID, key: UUID) -> list[Fact]:
    """Unread facts of a run, oldest first."""
    inboxes = await store.inboxes(db.engine, [(account_id, key)])
    return [_fact(row) for row in inboxes[account_id, key]]


def _fact(row: Any) -> Fact:
    return Fact(row["no"], row["type"], row["payload"], row["at"])
