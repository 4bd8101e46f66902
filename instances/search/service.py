"""Searching an account's instances, and finding single ones by any spelling of their id.

Names the instances a search may cost to look at: what an index serves is unbounded, everything else is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from app.errors import InvalidRequest
from instances.errors import InstanceNotFound
from instances.listing import COUNTED_ROWS
from instances.projections.entries import Entry
from instances.search import statements, store
from instances.search.conditions import Conditions, HeldBack, Parameters
from instances.search.plan import Plan, plan
from instances.search.query import AnyOf, By, Compare, Every, Field, Not, Predicate, Search
from instances.search.statements import Statement
from instances.search.store import Row
from instances.store import Detail
from tenants.auth import Caller
from tenants.database import Database

READ = "executions:read"
SMALL = 6_000
"""Rows that are rather sorted than sought in the order of an index."""
SCAN = 100_000
"""Rows a search may look at when no index decides about them, and may sort."""
NARROW = "too many instances to search through; narrow the filter"
_CHUNK = 8
"""Workflows tried at once when a page is read workflow after workflow."""


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a search.

    `more`: there are rows beyond the page, in the direction it was read. `total` is None when it was not asked for or
    the page begins at a cursor, else how many rows all pages have; `capped`: at least so many. `journals` has those
    that were asked for, by key.
    """

    rows: list[Row]
    more: bool
    total: int | None
    capped: bool = False
    journals: dict[UUID, list[Entry]] = field(default_factory=dict)


class Searcher:
    """Searches instances; see :class:`Search`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def search(
        self,
        caller: Caller,
        search: Search,
        detail: Detail | None = None,
        of: Callable[[Row], bool] = lambda _row: True,
    ) -> Found:
        """A page of the caller's instances; with `detail` the journals of those rows `of` holds for, in that detail,
        along with it. `of` is asked once for each row, in their order.

        Raises :class:`NotAllowed`, and :class:`InvalidRequest` for a search that would have to look at too many rows.
        """
        caller.require(READ)
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            try:
                await connection.execute(store.CONFINE)
                async with _Counting(self._db, connection, caller.account_id) as counting:
                    found = await _Page(connection, caller, search, counting).read()
                    rows = await store.rows(
                        connection, caller.account_id, found.keys, found.held, payloads=search.payloads
                    )
                    journals = {}
                    told = [row for row in rows if of(row)] if detail is not None else []
                    if detail is not None and told:
                        journals = await store.entries(connection, caller.account_id, told, detail.kinds, detail.cut)
                    if found.is_counted:
                        found.learn(await counting.total())
            except asyncpg.QueryCanceledError:
                raise InvalidRequest(NARROW) from None
        return Found(rows, found.more, found.total, found.capped, journals)

    async def one(self, caller: Caller, key: UUID, *, with_deleted: bool = False) -> Row:
        """The instance of that key, whichever workflow it is of. Raises :class:`InstanceNotFound`."""
        return await self._one(caller, store.BY_KEY, with_deleted, key)

    async def one_by_no(self, caller: Caller, no: int, *, with_deleted: bool = False) -> Row:
        """The instance of that number. Raises :class:`InstanceNotFound`."""
        return await self._one(caller, store.BY_NO, with_deleted, no)

    async def one_by_transaction(
        self, caller: Caller, workflow_key: UUID, transaction_id: str, *, with_deleted: bool = False
    ) -> Row:
        """The newest run of a transaction of a workflow. Raises :class:`InstanceNotFound`."""
        return await self._one(caller, store.BY_TRANSACTION, with_deleted, workflow_key, transaction_id)

    async def one_by_id(
        self, caller: Caller, workflow_key: UUID, instance_id: str, *, with_deleted: bool = False
    ) -> Row:
        """The instance of that id in a workflow. Raises :class:`InstanceNotFound`."""
        return await self._one(caller, store.BY_ID, with_deleted, workflow_key, instance_id)

    async def _one(self, caller: Caller, statement: str, with_deleted: bool, *which: object) -> Row:
        caller.require(READ)
        if any(isinstance(value, str) and "\0" in value for value in which):
            raise InstanceNotFound()
        account = caller.account_id
        async with self._db.scope(account) as connection:
            key = await store.locate(connection, statement, account, caller.workspace_id, with_deleted, *which)
            if key is None:
                raise InstanceNotFound()
            held = await store.held_back(connection, account)
            rows = await store.rows(connection, account, [key], held, payloads=True)
        if not rows:
            raise InstanceNotFound()
        return rows[0]


class _Counting:
    """Counts beside the reading of a page, over a connection of its own if one is to spare: who holds one and waited
    for another could wait for somebody who does the same. Otherwise after it.
    """

    def __init__(self, db: Database, connection: asyncpg.Connection, account_id: UUID) -> None:
        self._db = db
        self._connection = connection
        self._account_id = account_id
        self._wanted: tuple[str, Parameters] | None = None
        self._task: asyncio.Task[int | None] | None = None

    async def __aenter__(self) -> _Counting:
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._task is not None:
            if error is not None:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def begin(self, text: str, parameters: Parameters) -> None:
        """Count what this statement says."""
        self._wanted = text, parameters
        self._task = asyncio.create_task(self._beside())

    @property
    def begun(self) -> bool:
        return self._task is not None

    async def total(self) -> int:
        """What was counted, once it has begun. Raises what the statement did."""
        assert self._wanted is not None and self._task is not None
        counted = await self._task
        return await store.number(self._connection, *self._wanted) if counted is None else counted

    async def _beside(self) -> int | None:
        assert self._wanted is not None
        if not self._db.spare:  # asked for here: nobody has his turn before the connection is taken
            return None
        async with self._db.scope(self._account_id, transaction=True) as connection:
            await connection.execute(store.CONFINE)
            return await store.number(connection, *self._wanted)


@dataclass(slots=True)
class _Keys:
    """A page before its rows are read. Where its total `is_counted` meanwhile, there are `least` rows at least."""

    keys: list[UUID]
    more: bool
    total: int | None
    capped: bool
    held: HeldBack
    is_counted: bool = False
    least: int = 0

    def learn(self, counted: int) -> None:
        """The total. Where not all rows are looked at, and beside other work, those counted need not be those shown."""
        total = max(counted, self.least)
        self.total, self.capped = min(total, COUNTED_ROWS), self.capped or total > COUNTED_ROWS


class _Page:
    """One search under way."""

    def __init__(self, connection: asyncpg.Connection, caller: Caller, search: Search, counting: _Counting) -> None:
        self._connection = connection
        self._counting = counting
        self._account = caller.account_id
        self._workspace = caller.workspace_id
        self._search = search
        self._held = HeldBack()
        self._handles: dict[Compare, list[UUID]] = {}
        self._plan = Plan()

    async def read(self) -> _Keys:
        self._held = await store.held_back(self._connection, self._account)
        for compare in _handles_in(self._search.where):
            self._handles[compare] = await store.workflows_where(self._connection, self._account, compare)
        self._plan = plan(self._search, self._handles, self._held)
        if self._workspace is not None:
            mine = frozenset(await store.workflows(self._connection, self._account, self._workspace))
            self._plan.workflows = mine if self._plan.workflows is None else mine & self._plan.workflows
        if self._search.with_deleted and not (self._plan.workflows is None and self._plan.any_facet):
            self._plan.rest.append(self._search.where)  # the indexes by workflow and status leave deleted ones out
        if self._plan.empty:
            return self._done([], 0, False)
        if self._plan.pointed:
            return await self._of_points()
        if not self._plan.any_facet or self._plan.started_since or self._plan.by_start:
            await self._know_workflows()
            if not self._plan.groups():
                return self._done([], 0, False)
        if self._plan.exact and (self._search.by in (By.CREATED, By.STARTED) or self._every_one):
            return await self._in_order()
        return await self._sorted() or await self._in_order()

    @property
    def _every_one(self) -> bool:
        """Whether every transaction's instances are wanted, of all workflows or some: nothing is passed over, then."""
        return self._search.by is By.TRANSACTION and self._plan.any_facet and self._plan.unbounded

    # --- the three ways to rows ----------------------------------------------------------------------------------

    async def _of_points(self) -> _Keys:
        if self._plan.keys is None and self._plan.nos is None:
            await self._know_workflows()
        statement = self._statement()
        source = f"{statement.points()} i"
        keys = await self._run(statements.sorted_page(statement, source), statement)
        return self._with_total(keys, lambda again: statements.total(again, f"{again.points()} i"))

    async def _sorted(self) -> _Keys | None:
        """All that the indexes leave, sorted; None when that is too much and the order has an index."""
        most = SMALL if self._search.by in (By.CREATED, By.TRANSACTION, By.STARTED) else SCAN
        for by_start in (self._plan.by_start, True) if self._plan.started_since else (self._plan.by_start,):
            if await self._left(most, by_start=by_start) <= most:
                return await self._sort(most + 1, by_start)
        if most == SCAN:
            raise InvalidRequest(f"too many instances to order by {self._search.by.value}; narrow the filter")
        return None

    async def _sort(self, most: int, by_start: bool) -> _Keys:
        def source(one: Statement) -> str:
            return statements.of_keys(one.branches(one.scans(by_start=by_start), most, ordered=False))

        exact, statement = self._plan.exact, self._statement()
        keys = await self._run(statements.sorted_page(statement, source(statement), checked=exact), statement)
        return self._with_total(keys, self._count if exact else lambda again: statements.total(again, source(again)))

    async def _in_order(self) -> _Keys:
        """In the order of an index; unless that decides alone, looking at a bounded number of rows."""
        if self._search.by is By.TRANSACTION:
            if self._plan.exact and self._wants_total and not self._every_one:
                self._begin_to_count(self._count)  # there are too many to sort, and to find the first takes as long
            return await self._bounded(await self._by_transaction(self._search.offset, self._search.limit + 1))
        need = _rounded(self._search.offset + self._search.limit + 1)
        statement = self._statement()
        scans = statement.scans(by_start=self._plan.by_start)
        if self._plan.exact:
            branches = statement.branches(scans, need, ordered=True)
        else:
            branches = statement.branches(scans, SCAN, ordered=True, limit=need)
        return await self._bounded(await self._run(statements.merged_page(statement, branches), statement))

    async def _by_transaction(self, skipped: int, need: int) -> list[UUID]:
        await self._know_workflows()
        workflows = await store.in_order(self._connection, self._account, self._plan.among)
        if self._search.descending:
            workflows.reverse()
        if len(workflows) <= _CHUNK:  # as most accounts have: what is skipped need not be read
            statement = self._statement()
            return await self._run(statements.by_transaction(statement, workflows, need, skipped), statement)
        found: list[UUID] = []
        begun, size = 0, _CHUNK
        while begun < len(workflows) and len(found) < skipped + need:
            statement = self._statement()
            chunk = workflows[begun : begun + size]
            wanted = skipped + need - len(found)
            found += await self._run(statements.by_transaction(statement, chunk, wanted), statement)
            begun, size = begun + size, size * 4
        return found[skipped:]

    # --- totals --------------------------------------------------------------------------------------------------

    async def _bounded(self, keys: list[UUID]) -> _Keys:
        """A page read in order; refused when it is short because the rows looked at were used up."""
        short = len(keys) <= self._search.limit
        if self._plan.exact:
            return self._with_total(keys, self._count)
        used_up = (short or self._wants_total) and await self._left(SCAN) > SCAN
        if short and used_up:
            raise InvalidRequest(NARROW)
        found = self._with_total(keys, self._count)
        found.capped = found.capped or (used_up and not short)
        return found

    def _count(self, statement: Statement) -> str:
        most = COUNTED_ROWS + 1
        if self._plan.exact and self._plan.unbounded:
            return statements.known_total(statement, most)
        scans = statement.scans(by_start=self._plan.by_start)
        if self._plan.exact:
            return statements.counted(statement.branches(scans, most, ordered=False), most)
        return statements.counted(statement.branches(scans, SCAN, ordered=False, limit=most), most)

    @property
    def _wants_total(self) -> bool:
        return self._search.counted and self._search.start is None

    def _with_total(self, keys: list[UUID], count: Callable[[Statement], str]) -> _Keys:
        if not self._wants_total:
            return self._done(keys, None, False)
        offset, limit = self._search.offset, self._search.limit
        if len(keys) <= limit and (keys or not offset):
            return self._done(keys, min(offset + len(keys), COUNTED_ROWS), offset + len(keys) > COUNTED_ROWS)
        if not self._counting.begun:
            self._begin_to_count(count)
        found = self._done(keys, None, False)
        found.is_counted, found.least = True, offset + len(keys) if keys else 0
        return found

    def _begin_to_count(self, count: Callable[[Statement], str]) -> None:
        statement = self._statement()
        self._counting.begin(count(statement), statement.parameters)

    def _done(self, keys: list[UUID], total: int | None, capped: bool) -> _Keys:
        more, page = len(keys) > self._search.limit, keys[: self._search.limit]
        if self._search.start is not None and self._search.start.backwards:
            page.reverse()
        return _Keys(page, more, total if self._wants_total else None, capped, self._held)

    # --- inner ---------------------------------------------------------------------------------------------------

    async def _left(self, most: int, *, by_start: bool | None = None) -> int:
        """How many rows the indexes leave, counted to one more than `most`."""
        statement = self._statement()
        scans = statement.scans(by_start=self._plan.by_start if by_start is None else by_start)
        branches = statement.branches(scans, most + 1, ordered=False)
        return await self._number(statements.counted(branches, most + 1), statement)

    async def _know_workflows(self) -> None:
        """Indexes begin with the workflow: without any given, all of the account's."""
        if self._plan.workflows is None and self._plan.every_workflow is None:
            self._plan.every_workflow = tuple(await store.workflows(self._connection, self._account, None))

    def _statement(self) -> Statement:
        parameters = Parameters(self._account)
        conditions = Conditions(parameters, self._held, self._handles)
        ended = Conditions(parameters, self._held, self._handles, finished=True)
        return Statement(self._search, self._plan, parameters, conditions, ended, self._held, SCAN)

    async def _run(self, text: str, statement: Statement) -> list[UUID]:
        return await store.keys(self._connection, text, statement.parameters)

    async def _number(self, text: str, statement: Statement) -> int:
        return await store.number(self._connection, text, statement.parameters)


def _rounded(rows: int) -> int:
    """The next power of two: few different statements, so that prepared ones are used again."""
    return max(32, 1 << (rows - 1).bit_length())


def _handles_in(predicate: Predicate) -> list[Compare]:
    match predicate:
        case Every(parts) | AnyOf(parts):
            return [one for part in parts for one in _handles_in(part)]
        case Not(part):
            return _handles_in(part)
        case Compare(Field.HANDLE):
            return [predicate]
        case _:
            return []
