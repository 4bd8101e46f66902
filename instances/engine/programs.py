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
MAX_CHARACTERS = 16 << 20
"""Of sources. A document takes a dozen times its text in memory, one made for it a hundred times."""


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
        self._characters = 0

    async def load(self, wanted: Iterable[tuple[UUID, UUID]]) -> None:
        """Open what is not open yet, and keep all of it until the next call.

        One that cannot be opened is left out, and logged.
        """
        needed = set(wanted)
        for id in needed:
            if id in self._programs:
                self._programs.move_to_end(id)
                continue
            try:
                version = await self._load_version(*id)
                self._programs[id] = (await self._runtimes[version.runtime].open(version), version)
                self._characters += len(version.source)
            except LOST:
                raise
            except Exception:
                log.exception("a version cannot be opened", account=id[0].hex, version=str(id[1]))
        self._forget(len(needed & self._programs.keys()))

    def _forget(self, kept: int) -> None:
        """Let the least used go while there are too many, but not the last `kept`."""
        while len(self._programs) > kept and (len(self._programs) > MAX_PROGRAMS or self._characters > MAX_CHARACTERS):
            _, (_, forgotten) = self._programs.popitem(last=False)
            self._characters -= len(forgotten.source)

    def get(self, account_id: UUID, version_key: UUID) -> tuple[Program, StoredVersion] | None:
        return self._programs.get((account_id, version_key))
