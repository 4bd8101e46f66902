"""What a page remembers is what it would read: after any command, and while workers go on."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.errors import MillraceError
from instances.search.executions import ExecutionReader, Shown
from instances.search.query import Search
from instances.search.service import Searcher
from instances.store import STEPS, WHOLE, Detail
from tests.integration.instances.test_executions import Desk, desk, worker  # noqa: F401
from tests.integration.instances.test_retries import Recorder, recorder, works  # noqa: F401
from tests.support.document_runs import event, wait
from versions.service import VersionService

pytestmark = pytest.mark.usefixtures("worker")

NODES = [
    works("a", compensate={"type": "noop"}),
    event("e", "a"),
    works("b", "e", retries={"limit": 1, "delay": 0}),
    wait("s", "b", config={"durationMs": 1000}),
    {"id": "x", "type": "external", "depends_on": ["a"]},
    works("c", "s", "x"),
]
COMMANDS = 30


def commands(desk: Desk, recorder: Recorder, shown: Shown, dice: random.Random) -> list[Callable[[], Awaitable[Any]]]:  # noqa: F811
    """What may be done to an execution; much of it is refused, as the execution may stand."""
    caller, key, facts = desk.world.caller, shown.row.facts.key, shown.row.facts
    of = (caller, facts.handle, facts.instance_id)

    async def breaks() -> None:
        recorder.broken = {dice.choice("abc")} if dice.random() < 0.5 else set()

    async def time_goes_by() -> None:
        desk.world.clock.advance(2)

    return [
        breaks,
        time_goes_by,
        lambda: desk.instances.send_event(*of, "e", "1"),
        lambda: desk.instances.pause(*of),
        lambda: desk.instances.resume(*of),
        lambda: desk.instances.terminate(*of, rollback=dice.random() < 0.5),
        lambda: desk.instances.restart(*of),
        lambda: desk.executions.retry(caller, key),
        lambda: desk.executions.retry_step(caller, key, dice.choice("abcesx")),
        lambda: desk.executions.complete_step(caller, key, "x", "2"),
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_a_page_is_the_same_whether_it_was_seen_before_or_not(
    desk: Desk,  # noqa: F811
    recorder: Recorder,  # noqa: F811
    versions: VersionService,
    db: Any,
    seed: int,
):
    dice = random.Random(seed)
    for _ in range(3):
        await desk.run(NODES)

    async def page(reader: ExecutionReader, detail: Detail = STEPS) -> list[Shown]:
        return (await reader.page(desk.world.caller, Search(), detail=detail)).shown

    async def unseen(detail: Detail = STEPS) -> list[Shown]:
        return await page(ExecutionReader(db, versions, Searcher(db)), detail)

    async def compare(detail: Detail) -> list[Shown]:
        async with asyncio.timeout(30):
            while True:
                before, told, after = (
                    await unseen(detail),
                    await page(desk.instances.reader, detail),
                    await unseen(detail),
                )
                if before == after:  # else a worker went on meanwhile
                    assert told == before
                    return told

    for number in range(COMMANDS):
        shown = await compare(WHOLE if number % 10 == 9 else STEPS)
        with contextlib.suppress(MillraceError):
            await dice.choice(commands(desk, recorder, dice.choice(shown), dice))()
    await compare(STEPS)
