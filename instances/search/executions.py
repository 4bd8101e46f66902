"""Executions as translated faces show them: rows, journals and documents put together."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from instances import parents
from instances.executions.inputs import inputs_of
from instances.parents import ParentStep
from instances.projections.execution import Execution, execution
from instances.projections.fold import fold
from instances.projections.history import History
from instances.runtimes.protocol import RUNTIME_DOCUMENT, Raw
from instances.search import store
from instances.search.query import Search
from instances.search.remembered import RememberedExecutions
from instances.search.service import Found, Searcher
from instances.search.store import Row
from instances.store import STEPS, WHOLE, Detail
from tenants.auth import Caller
from tenants.database import Database
from versions.definitions.schemas import KnownStep
from versions.document import Document, decode_document
from versions.service import VersionService

MADE_AT_ONCE = 20
"""Executions of a page that are made before other requests have their turn."""
DOCUMENTS_HELD = 200
"""Decoded documents kept in memory."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An instance a face shows: its row and its execution."""

    row: Row
    execution: Execution


@dataclass(frozen=True, slots=True)
class ShownPage:
    """A page of them; `found` has the totals."""

    shown: list[Shown]
    found: Found


class ExecutionReader:
    """Reads executions. One per process: it remembers documents."""

    def __init__(self, db: Database, versions: VersionService, searcher: Searcher) -> None:
        self._db = db
        self._versions = versions
        self._searcher = searcher
        self._documents: OrderedDict[tuple[UUID, UUID], Document | None] = OrderedDict()
        self._remembered = RememberedExecutions()

    async def one(self, caller: Caller, key: UUID, *, with_deleted: bool = False) -> Shown:
        """The execution of that key. Raises `NotAllowed`, :class:`InstanceNotFound`."""
        return await self.of(caller, await self._searcher.one(caller, key, with_deleted=with_deleted))

    async def of(self, caller: Caller, row: Row) -> Shown:
        """The execution of a row that was found for the caller."""
        async with self._db.scope(caller.account_id) as connection:
            journals = await store.entries(connection, caller.account_id, [row], WHOLE.kinds, None)
        return await self._shown(caller.account_id, row, fold(journals[row.facts.key]))

    async def page(
        self,
        caller: Caller,
        search: Search,
        whole: Callable[[Row], bool] = lambda _row: True,
        detail: Detail = WHOLE,
    ) -> ShownPage:
        """A page, journals read at once in that detail. Those that are not to be `whole` are shown as if nothing had
        been written and nothing were known of their documents: they have their facts, and no steps. Raises as
        :meth:`Searcher.search`.
        """
        account_id = caller.account_id
        remembered: dict[UUID, Execution] = {}

        def must_be_read(row: Row) -> bool:
            if not whole(row):
                return False
            known = self._remembered.find(account_id, row, detail)
            if known is not None:
                remembered[row.facts.key] = known
            return known is None

        found = await self._searcher.search(caller, search, detail, must_be_read)
        shown: list[Shown] = []
        made = 0
        for row in found.rows:
            entries = found.journals.get(row.facts.key)
            if entries is None:
                told = remembered.get(row.facts.key) or execution(row.facts, row.facet, History(), None)
                shown.append(Shown(row, told))
                continue
            one = await self._shown(account_id, row, fold(entries))
            self._remembered.keep(account_id, row, detail, entries, one.execution)
            shown.append(one)
            made += 1
            if made % MADE_AT_ONCE == 0:
                await asyncio.sleep(0)
        return ShownPage(shown, found)

    async def parents(self, caller: Caller, rows: Iterable[Row]) -> dict[UUID, ParentStep]:
        """Of those that are children: the steps that wait for them, by the children's keys."""
        children = [row.facts.key for row in rows if row.facts.parent_key is not None]
        if not children:
            return {}
        account_id = caller.account_id
        async with self._db.scope(account_id) as connection:
            found = await store.parent_steps(connection, account_id, caller.workspace_id, children)
        told: dict[UUID, ParentStep] = {}
        for child, handle, transaction_id, version_key, step in found:
            key, document = parents.read(step), await self.document(account_id, version_key)
            loops = document is not None and any(
                node.id == key.name and node.for_each is not None for node in document.nodes
            )
            told[child] = ParentStep(handle, transaction_id, key, loops)
        return told

    async def inputs(self, caller: Caller, shown: Shown, starts: Collection[int]) -> dict[int, Raw]:
        """What nodes of a document were given that began with these entries, as JSON text, by entry; not all need be
        told, and of scripts none are.
        """
        document = shown.execution.document
        if document is None or not starts:
            return {}
        version = await self._versions.load(caller.account_id, shown.row.facts.version_key)
        return await asyncio.to_thread(inputs_of, shown.execution, document, version, frozenset(starts))

    async def known_steps(self, caller: Caller, workflow_key: UUID) -> list[KnownStep]:
        """The steps a script is known to have: those of its newest instance that the caller may see."""
        search = Search(workflows=[workflow_key], limit=1, counted=False, payloads=False)
        newest = await self.page(caller, search, detail=STEPS)
        return [KnownStep(step.id, step.name) for one in newest.shown for step in one.execution.steps]

    async def _shown(self, account_id: UUID, row: Row, history: History) -> Shown:
        document = await self.document(account_id, row.facts.version_key)
        return Shown(row, execution(row.facts, row.facet, history, document))

    async def document(self, account_id: UUID, version_key: UUID) -> Document | None:
        """The document a version runs; None for scripts. Raises `VersionNotFound`."""
        known = (account_id, version_key)
        if known in self._documents:
            self._documents.move_to_end(known)
            return self._documents[known]
        version = await self._versions.load(account_id, version_key)
        document = decode_document(version.source) if version.runtime == RUNTIME_DOCUMENT else None
        self._documents[known] = document
        if len(self._documents) > DOCUMENTS_HELD:
            self._documents.popitem(last=False)
        return document
