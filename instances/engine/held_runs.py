"""The runs a worker has in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any
from uuid import UUID

from instances.engine.runs.run import Run

RunId = tuple[UUID, UUID, int]
"""Account, key and epoch: a run that was replaced may still be here beside the one that replaced it."""


def id_of(run: Run) -> RunId:
    return run.held.context.account_id, run.held.context.key, run.held.epoch


class HeldRuns:
    """Runs and the tasks that drive them."""

    def __init__(self) -> None:
        self._runs: dict[RunId, Run] = {}
        self._newest: dict[tuple[UUID, UUID], Run] = {}
        self._tasks: dict[Run, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._tasks))

    def get(self, id: RunId) -> Run | None:
        return self._runs.get(id)

    def newest(self, account_id: UUID, key: UUID) -> Run | None:
        """The run of an instance that is not replaced yet."""
        return self._newest.get((account_id, key))

    def by_account(self) -> Counter[UUID]:
        return Counter(account for account, _, _ in self._runs)

    def add(self, run: Run, drive: Coroutine[Any, Any, None]) -> None:
        """Hold a run, and have it driven."""
        id = id_of(run)
        self._runs[id] = self._newest[id[:2]] = run
        self._tasks[run] = asyncio.get_running_loop().create_task(drive)

    def remove(self, run: Run) -> None:
        """It is over: parked, ended, released or lost."""
        id = id_of(run)
        self._runs.pop(id, None)
        self._tasks.pop(run, None)
        if self._newest.get(id[:2]) is run:
            del self._newest[id[:2]]

    async def gone(self, within: float) -> None:
        """Returns when all runs of this moment are over, or after so many seconds."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=within)

    async def cancel(self) -> None:
        """Drop all runs as they are."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
