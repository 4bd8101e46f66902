"""Deleting versions of workflows nobody can come back to, and deleted workflows of which nothing is left to ask for.

Every deployment makes a version. The latest ones stay, and those instances have, finished ones included: they are
shown, restarted from a step and repeated on the version they ran. No index says which instances have a version (it
would cost every create), so all of a workflow are walked, a page at a time, in the order of their keys. An instance
that is created meanwhile has the current version or, when it repeats another, the version of one with a lower key: so
what no instance had when the walk passed it, none has at the end. The walk is in memory; a worker that dies in the
middle has deleted nothing, and another one, or the next, begins it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from jobs.retention import store
from tenants.clock import Clock
from tenants.database import Database

WORKFLOWS = 200
"""Workflows looked at in one go."""
INSTANCES = 10_000
"""Instances of a workflow looked at in one go, some ten milliseconds' work."""
CANDIDATES = 5_000
"""Versions of a workflow looked for in one walk."""
VERSIONS = 100
"""Versions deleted in one go: each may have megabytes of text."""


@dataclass
class Walk:
    """What is being deleted of one workflow."""

    workflow: store.Workflow
    forgotten: bool
    """Everything; else `unused` versions."""
    number: int = 0
    """Versions up to this number were looked for."""
    unused: set[UUID] = field(default_factory=set)
    """Of these, those that no instance was found to have."""
    passed: UUID | None = None
    """The last instance looked at; None: all were."""


class PruneWorkflows:
    """Goes round all workflows of all accounts, a few at a time. Safe on any number of workers at once."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._after = store.FIRST
        self._walk: Walk | None = None

    async def tick(self) -> bool:
        """The next piece of work; whether more is waiting. What only reads many instances has time."""
        walk = self._walk
        if walk is None:
            now = self._clock.now()
            found, self._after = await store.next_workflow(self._db, self._after, now, WORKFLOWS)
            self._walk = None if found is None else Walk(*found)
            return found is not None
        if walk.forgotten:
            return await self._forget(walk.workflow)
        if not walk.unused:
            return await self._look_for_versions(walk)
        if walk.passed is not None:
            return await self._look_at_instances(walk)
        batch = list(islice(walk.unused, VERSIONS))
        await store.delete_versions(self._db, walk.workflow, batch, self._clock.now())
        walk.unused.difference_update(batch)
        return True

    async def _forget(self, workflow: store.Workflow) -> bool:
        gone, over = await store.delete_forgotten(self._db, workflow, self._clock.now(), VERSIONS)
        if over or gone < VERSIONS:
            self._walk = None
        return True

    async def _look_for_versions(self, walk: Walk) -> bool:
        walk.unused, walk.number = await store.outlived_versions(
            self._db, walk.workflow, walk.number, self._clock.now(), CANDIDATES
        )
        walk.passed = UUID(int=0)
        if not walk.unused:
            self._walk = None
        return True

    async def _look_at_instances(self, walk: Walk) -> bool:
        assert walk.passed is not None
        used, last = await store.versions_in_use(self._db, walk.workflow, walk.passed, INSTANCES)
        if last is None:
            used |= await store.versions_of_hidden(self._db, walk.workflow)
        walk.unused -= used
        walk.passed = last
        return last is None or not walk.unused
