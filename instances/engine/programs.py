"""Opened versions of a worker: loaded once, shared by all runs, the least used forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from uuid import UUID

import structlog

from instances.engine.group_commit import LOST
from instances.runtimes.protocol import Program, Runtime, StoredVersion

log = structlog.get_logger(__name__)

MAX_PROGRAMS = 2_000


class Programs:
    """Cache of programs by (account, version). Versions are immutable, so nothing is ever stale."""

    def __init__(
        self,
        runtimes: Mapping[int, Runtime],
        load_version: Callable[[UUID, UUID], Awaitable[StoredVersion]],
    ) -> None:
        self._runtimes = runtimes
        self._load_version = load_version
        self._programs: OrderedDict[tuple[UUID, UUID], tuple[Program, StoredVersion]] = OrderedDict()

    async def load(self, wanted: Iterable[tuple[UUID, UUID]]) -> None:
        """Open what is not open yet. One that cannot be opened is left out, and logged."""
        for id in wanted:
            if id in self._programs:
                self._programs.move_to_end(id)
                continue
            try:
                version = await self._load_version(*id)
                self._programs[id] = (await self._runtimes[version.runtime].open(version), version)
            except LOST:
                raise
            except Exception:
                log.exception("a version cannot be opened", account=id[0].hex, version=str(id[1]))
        while len(self._programs) > MAX_PROGRAMS:
            self._programs.popitem(last=False)

    def get(self, account_id: UUID, version_key: UUID) -> tuple[Program, StoredVersion] | None:
        return self._programs.get((account_id, version_key))
