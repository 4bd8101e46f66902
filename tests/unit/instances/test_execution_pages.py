"""Pages of executions: how the work is divided, what of it is remembered, and how much of the journals it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

from instances.lifecycle import Kind
from instances.projections.entries import Entry
from instances.projections.execution import Execution, execution
from instances.projections.fold import fold
from instances.projections.instance_view import InstanceFacts
from instances.search.executions import MADE_AT_ONCE, ExecutionReader
from instances.search.query import Facet, Search
from instances.search.remembered import RememberedExecutions
from instances.search.service import Found, Searcher
from instances.search.store import Row
from instances.store import STEPS, WHOLE, Detail
from tenants.auth import Caller
from tests.support.journal import START, Journal
from versions.document import Document, parse_document
from versions.service import VersionService

ACCOUNT = UUID(int=9)
CALLER = cast(Caller, type("Anyone", (), {"account_id": ACCOUNT}))
STRANGER = cast(Caller, type("Anyone", (), {"account_id": UUID(int=8)}))
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
    return Row(facts, Facet.RUNNING, "w", None, 1, last_seq=4)


class Finds:
    """Finds as many instances that ran a step. `read`: those whose journals were asked for, by number."""

    def __init__(self, count: int) -> None:
        self.rows = [row(number) for number in range(count)]
        self.output = 1
        self.read: list[int] = []

    async def search(self, _caller: Caller, _search: Search, _detail: Detail, of: Callable[[Row], bool]) -> Found:
        journal = Journal().begin()
        journal.step("a", self.output)
        told = [row for row in self.rows if of(row)]
        self.read = [row.facts.key.int for row in told]
        journals: dict[UUID, list[Entry]] = {row.facts.key: journal.entries for row in told}
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

    beside = asyncio.create_task(others())
    page = await Reader(Finds(5 * MADE_AT_ONCE)).page(CALLER, Search())
    beside.cancel()
    assert len(page.shown) == 5 * MADE_AT_ONCE
    assert all(one.execution.steps[0].invoke.output == "1" for one in page.shown)
    assert turns >= 4


async def test_a_journal_is_read_again_when_there_is_news_in_it():
    finds = Finds(3)
    reader = Reader(finds)
    await reader.page(CALLER, Search())
    assert finds.read == [0, 1, 2]
    finds.rows[1] = replace(finds.rows[1], last_seq=5)
    finds.output = 2
    page = await reader.page(CALLER, Search())
    assert finds.read == [1]
    assert [one.execution.steps[0].invoke.output for one in page.shown] == ["1", "2", "1"]


async def test_what_is_remembered_is_of_one_account_and_of_as_much_as_was_read():
    finds = Finds(2)
    reader = Reader(finds)
    await reader.page(CALLER, Search())
    await reader.page(STRANGER, Search())
    assert finds.read == [0, 1]
    await reader.page(CALLER, Search(), detail=STEPS)
    assert finds.read == [0, 1]


async def test_what_a_row_says_of_itself_is_shown_as_it_is_now():
    finds = Finds(1)
    reader = Reader(finds)
    await reader.page(CALLER, Search())
    waits = replace(finds.rows[0].facts, status=Facet.WAITING.status)
    finds.rows[0] = replace(finds.rows[0], facts=waits, facet=Facet.WAITING)
    page = await reader.page(CALLER, Search())
    assert finds.read == []
    assert page.shown[0].execution.facet is Facet.WAITING
    assert page.shown[0].execution.facts is waits
    ended = replace(waits, status=Facet.ERRORED.status)
    finds.rows[0] = replace(finds.rows[0], facts=ended, facet=Facet.ERRORED)
    await reader.page(CALLER, Search())
    assert finds.read == [0]  # its end says of steps that are under way what became of them


async def test_what_a_face_makes_of_a_journal_is_made_once_while_there_is_no_news():
    made: list[Execution] = []

    def names(execution: Execution) -> list[str]:
        made.append(execution)
        return [step.id for step in execution.steps]

    finds = Finds(1)
    reader = Reader(finds)
    for _ in range(2):
        page = await reader.page(CALLER, Search())
        assert page.shown[0].execution.once(names) == ["a"]
    assert len(made) == 1
    finds.rows[0] = replace(finds.rows[0], last_seq=5)
    page = await reader.page(CALLER, Search())
    assert page.shown[0].execution.once(names) == ["a"]
    assert len(made) == 2


def test_what_was_not_seen_for_longest_is_forgotten_first():
    journal = Journal().begin()
    journal.step("a", "1" * 2_000)
    told = execution(row(0).facts, Facet.RUNNING, fold(journal.entries), DOCUMENT)
    remembered = RememberedExecutions(most=32_000)

    def keep(number: int) -> None:
        remembered.keep(ACCOUNT, row(number), WHOLE, journal.entries, told)

    def known() -> list[int]:
        return [number for number in range(9) if remembered.find(ACCOUNT, row(number), WHOLE) is not None]

    for number in (0, 1, 2):
        keep(number)
    assert known() == [0, 1, 2]
    assert remembered.find(ACCOUNT, row(0), WHOLE) is not None
    keep(3)
    assert known() == [0, 2, 3]
    for _ in range(9):
        keep(3)  # once more is not one more
    assert known() == [0, 2, 3]


def test_one_that_is_larger_than_all_may_be_is_not_kept():
    journal = Journal().begin()
    journal.step("a", "1" * 2_000)
    told = execution(row(0).facts, Facet.RUNNING, fold(journal.entries), DOCUMENT)
    remembered = RememberedExecutions(most=5_000)
    remembered.keep(ACCOUNT, row(0), WHOLE, journal.entries, told)
    assert remembered.find(ACCOUNT, row(0), WHOLE) is None


def test_what_pages_read_is_the_whole_but_for_what_happened_beside_the_steps():
    """So that a new kind is not left out of pages by mistake."""
    beside = {Kind.QUEUED, Kind.EVENT_RECEIVED, Kind.MILESTONE, Kind.SYNC_POINT}
    assert set(WHOLE.kinds) - set(STEPS.kinds) == {int(kind) for kind in beside}
