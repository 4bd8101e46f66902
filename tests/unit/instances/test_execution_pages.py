"""Pages of executions: how the work is divided, and how much of the journals it takes."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID

from instances.lifecycle import Kind
from instances.projections.entries import Entry
from instances.projections.instance_view import InstanceFacts
from instances.search.executions import MADE_AT_ONCE, ExecutionReader
from instances.search.query import Facet, Search
from instances.search.service import Found, Searcher
from instances.search.store import Row
from instances.store import STEPS, WHOLE
from tenants.auth import Caller
from tests.support.journal import START, Journal
from versions.document import Document, parse_document
from versions.service import VersionService

ACCOUNT = UUID(int=9)
DOCUMENT = parse_document({"spec": "workflow/1", "name": "d", "nodes": [{"id": "a"}]})


def row(number: int) -> Row:
    facts = InstanceFacts(
        key=UUID(int=number),
        instance_id=str(number),
        workflow_key=ACCOUNT,
        handle="w",
        version_key=ACCOUNT,
        no=number,
        run=1,
        status=Facet.RUNNING.status,
        created_at=START,
        modified_at=START,
    )
    return Row(facts, Facet.RUNNING, "w", None, 1)


class Finds:
    """Finds as many instances that ran a step."""

    def __init__(self, count: int) -> None:
        self.rows = [row(number) for number in range(count)]

    async def search(self, *_: object) -> Found:
        journal = Journal().begin()
        journal.step("a", 1)
        journals: dict[UUID, list[Entry]] = {row.facts.key: journal.entries for row in self.rows}
        return Found(self.rows, False, None, False, journals)


class Reader(ExecutionReader):
    """One whose versions all run the same document."""

    def __init__(self, finds: Finds) -> None:
        super().__init__(cast(Any, None), cast(VersionService, None), cast(Searcher, finds))

    async def document(self, account_id: UUID, version_key: UUID) -> Document | None:
        return DOCUMENT


async def test_a_long_page_lets_others_have_their_turn():
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    caller = cast(Caller, type("Anyone", (), {"account_id": ACCOUNT}))
    beside = asyncio.create_task(others())
    page = await Reader(Finds(5 * MADE_AT_ONCE)).page(caller, Search())
    beside.cancel()
    assert len(page.shown) == 5 * MADE_AT_ONCE
    assert all(one.execution.steps[0].invoke.output == "1" for one in page.shown)
    assert turns >= 4


def test_what_pages_read_is_the_whole_but_for_what_happened_beside_the_steps():
    """So that a new kind is not left out of pages by mistake."""
    beside = {Kind.QUEUED, Kind.EVENT_RECEIVED, Kind.MILESTONE, Kind.SYNC_POINT}
    assert set(WHOLE.kinds) - set(STEPS.kinds) == {int(kind) for kind in beside}
