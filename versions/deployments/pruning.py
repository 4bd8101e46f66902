"""Deleting versions of scripts that nobody can come back to, and deployments nobody is shown."""

from __future__ import annotations

from uuid import UUID

from tenants.clock import Clock
from tenants.database import Database
from versions.deployments import store

SCRIPTS = 200
"""Scripts looked at in one go."""
VERSIONS = 100
"""Versions deleted in one go: each may have megabytes of modules."""


class PruneScripts:
    """Goes round all scripts of all accounts, a few at a time. Safe on any number of workers at once."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._after: tuple[UUID, str] = UUID(int=0), ""

    async def tick(self) -> bool:
        """The next scripts; whether the same ones have more to delete."""
        pruned = await store.prune(self._db, *self._after, self._clock.now(), SCRIPTS, VERSIONS)
        if pruned.versions == VERSIONS:
            return True
        self._after = pruned.last or (UUID(int=0), "")
        return False
