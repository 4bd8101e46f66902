"""Searches give what their filter and order say, whichever way rows are read; bounded ones are refused, not slow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.errors import InvalidRequest, NotAllowed
from instances.errors import InstanceNotFound
from instances.lifecycle import Kind, Status
from instances.listing import FIRST_KEY, LAST_KEY
from instances.projections.fold import fold
from instances.search import service, statements
from instances.search.query import (
    AnyOf,
    By,
    Compare,
    Every,
    Facet,
    Field,
    InFacets,
    Keyset,
    Not,
    Op,
    Predicate,
    Search,
    between,
    every,
    facets_of,
)
from instances.search.service import Found, Searcher
from instances.search.store import Row
from instances.store import WHOLE
from tests.support.instances import World

# 60 instances in three workflows, a second apart: every facet, several of one transaction, some deleted.
FILL = """
with n as (
  select g, ($2::uuid[])[1 + g / 5 % 3] as workflow, g % 12 as f,
         (lpad(to_hex(1767225600000 + 1000 * g), 12, '0') || '7000' || '8' || lpad(to_hex(g), 15, '0'))::uuid as key,
         timestamptz '2026-01-01 00:00:00Z' + g * interval '1 second' as at
  from generate_series(1, 60) g
), made as (
  insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, status, input, output,
    rollback, trigger_source, success_retention_ms, error_retention_ms, created_at, started_at, ended_at, deleted_at)
  select $1, key, workflow, workflow, 'I_' || g, 'T%' || g / 9, case when f >= 7 then 6 + (f - 7 + 1) / 2 else 0 end,
    '{}', '1',
    case when f in (9, 11) then '{"outcome":"complete","error":null}' when f = 8 then '{"outcome":"failed"}' end,
    g % 2, 1, 1, at, case when f >= 7 and g % 5 > 0 then at + (70 - g) * interval '2 seconds' end,
    case when f >= 7 then at + interval '1 hour' end, case when f >= 7 and g % 7 = 0 then at end
  from n
), hot as (
  insert into live (account_id, key, workflow_key, runtime, status, phase, epoch, seq, modified_at, started_at, run)
  select $1, key, workflow, 1, case f when 0 then 0 when 6 then 5 else f end, 2, g, 9, at + interval '1 day' * (g % 4),
         case when f not in (0, 3) or g / 12 % 3 > 0 then at + interval '3 seconds' end, 2
  from n where f < 7
)
insert into journal (account_id, key, seq, run, kind, at)
select $1, key, s, case when f = 6 then 1 else 2 end, case s when 1 then 0 else 21 end, at
from n, generate_series(1, 2) s where f in (5, 6) or s = 1
"""


@pytest.fixture
def searcher(db) -> Searcher:
    return Searcher(db)


@pytest.fixture
async def filled(world: World, other: World, admin) -> World:
    workflows = [await world.workflow(handle) for handle in ("alpha", "beta_x", "gamma")]
    await admin.execute(FILL, world.account, workflows)
    await admin.execute("select setval('epoch_seq', 1000)")
    elsewhere = [await other.workflow(handle) for handle in ("alpha", "beta_x", "gamma")]
    await admin.execute(FILL, other.account, elsewhere)
    for one in (world, other):
        await one.count()
    return world


@pytest.fixture(params=["sorted", "in order"])
def way(request, monkeypatch) -> str:
    """Both ways of reading what no filter names."""
    if request.param == "in order":
        monkeypatch.setattr(service, "SMALL", 0)
    return request.param


async def all_rows(searcher: Searcher, world: World) -> list[Row]:
    """Everything, read in the simplest way: the base that the other searches are compared with."""
    found = await searcher.search(world.caller, Search(limit=1000, with_deleted=True))
    assert len(found.rows) == 60
    return found.rows


def text(field: Callable[[Row], str], part: str) -> Callable[[Row], bool]:
    return lambda row: part.lower() in field(row).lower()


def started(row: Row) -> Any:
    return row.facts.started_at or row.facts.created_at


def of(facets: set[Facet]) -> Callable[[Row], bool]:
    return lambda row: row.facet in facets


MOMENT = timedelta(seconds=30)
UNFINISHED = {facet for facet in Facet if not facet.status.finished}


def cases(base: list[Row]) -> dict[str, tuple[Predicate, Callable[[Row], bool]]]:
    """Filters, and what they mean."""
    middle = base[30].facts
    transaction = middle.transaction_id
    handle, at = middle.handle, middle.created_at
    found: dict[str, tuple[Predicate, Callable[[Row], bool]]] = {
        f"facet {facet.name}": (InFacets(frozenset({facet})), of({facet})) for facet in Facet
    }
    return found | {
        "all": (Every(), lambda row: True),
        "none": (AnyOf(), lambda row: False),
        "unfinished": (InFacets(frozenset(UNFINISHED)), of(UNFINISHED)),
        "mixed": (
            InFacets(frozenset({Facet.RUNNING, Facet.COMPLETE, Facet.ERRORED})),
            of({Facet.RUNNING, Facet.COMPLETE, Facet.ERRORED}),
        ),
        "a workflow": (Compare(Field.HANDLE, Op.EQ, handle), lambda row: row.facts.handle == handle),
        "other workflows": (Compare(Field.HANDLE, Op.NE, handle), lambda row: row.facts.handle != handle),
        "workflows like": (Compare(Field.HANDLE, Op.LIKE, "%a\\_x"), lambda row: row.facts.handle == "beta_x"),
        "no workflow": (Compare(Field.HANDLE, Op.EQ, "nobody"), lambda row: False),
        "workflow and facets": (
            every(Compare(Field.HANDLE, Op.IN, ["alpha", "gamma"]), InFacets(facets_of([Status.COMPLETE]))),
            lambda row: row.facts.handle != "beta_x" and row.facet is Facet.COMPLETE,
        ),
        "a transaction": (
            Compare(Field.TRANSACTION_ID, Op.EQ, transaction),
            lambda row: row.facts.transaction_id == transaction,
        ),
        "transaction of a workflow, some facets": (
            every(
                Compare(Field.TRANSACTION_ID, Op.IN, [transaction, "x"]),
                Compare(Field.HANDLE, Op.EQ, handle),
                InFacets(frozenset(UNFINISHED)),
            ),
            lambda row: (
                row.facts.transaction_id == transaction and row.facts.handle == handle and row.facet in UNFINISHED
            ),
        ),
        "ids": (
            Compare(Field.INSTANCE_ID, Op.IN, ["I_3", "I_14", "i_15"]),
            lambda row: row.facts.instance_id in ("I_3", "I_14"),
        ),
        "keys": (Compare(Field.KEY, Op.IN, [middle.key, UUID(int=5)]), lambda row: row.facts.key == middle.key),
        "keys above": (Compare(Field.KEY, Op.GT, middle.key), lambda row: row.facts.key > middle.key),
        "keys up to, some facets": (
            every(Compare(Field.KEY, Op.LTE, middle.key), InFacets(frozenset(UNFINISHED))),
            lambda row: row.facts.key <= middle.key and row.facet in UNFINISHED,
        ),
        "keys between": (
            every(Compare(Field.KEY, Op.GTE, middle.key), Compare(Field.KEY, Op.LT, base[2].facts.key)),
            lambda row: middle.key <= row.facts.key < base[2].facts.key,
        ),
        "not keys below": (Not(Compare(Field.KEY, Op.LT, middle.key)), lambda row: row.facts.key >= middle.key),
        "keys above the last": (Compare(Field.KEY, Op.GT, LAST_KEY), lambda row: False),
        "keys below the first": (Compare(Field.KEY, Op.LT, FIRST_KEY), lambda row: False),
        "numbers": (Compare(Field.NO, Op.EQ, middle.no), lambda row: row.facts.no == middle.no),
        "contains": (
            Compare(Field.INSTANCE_ID, Op.CONTAINS, "i_1"),
            text(lambda row: row.facts.instance_id, "i_1"),
        ),
        "a percent sign is a percent sign": (
            Compare(Field.TRANSACTION_ID, Op.CONTAINS, "t%3"),
            text(lambda row: row.facts.transaction_id, "T%3"),
        ),
        "like": (
            Compare(Field.TRANSACTION_ID, Op.LIKE, "T_3"),
            lambda row: row.facts.transaction_id == "T%3",
        ),
        "like with a lone backslash": (Compare(Field.INSTANCE_ID, Op.ILIKE, "I_3\\"), lambda row: False),
        "created from": (between(Field.CREATED_AT, at, None) or Every(), lambda row: row.facts.created_at >= at),
        "created between": (
            between(Field.CREATED_AT, at, at + MOMENT / 2) or Every(),
            lambda row: at <= row.facts.created_at < at + MOMENT / 2,
        ),
        "created at": (Compare(Field.CREATED_AT, Op.EQ, at), lambda row: row.facts.created_at == at),
        "not created at": (Compare(Field.CREATED_AT, Op.NE, at), lambda row: row.facts.created_at != at),
        "created at no millisecond": (
            Compare(Field.CREATED_AT, Op.EQ, at + timedelta(microseconds=1)),
            lambda row: False,
        ),
        "created after, a microsecond off": (
            Compare(Field.CREATED_AT, Op.GTE, at - timedelta(microseconds=1)),
            lambda row: row.facts.created_at >= at,
        ),
        "started from": (
            between(Field.STARTED_AT, at + MOMENT, None) or Every(),
            lambda row: started(row) >= at + MOMENT,
        ),
        "started between": (
            between(Field.STARTED_AT, at, at + MOMENT) or Every(),
            lambda row: at <= started(row) < at + MOMENT,
        ),
        "started after": (Compare(Field.STARTED_AT, Op.GT, at), lambda row: started(row) > at),
        "started until": (Compare(Field.STARTED_AT, Op.LTE, at + MOMENT), lambda row: started(row) <= at + MOMENT),
        "started at": (Compare(Field.STARTED_AT, Op.EQ, at), lambda row: started(row) == at),
        "started in a time and some facets": (
            every(between(Field.STARTED_AT, at, at + 3 * MOMENT), InFacets(frozenset(list(Facet)[1::2]))),
            lambda row: at <= started(row) < at + 3 * MOMENT and row.facet in list(Facet)[1::2],
        ),
        "started in a time, created in another": (
            every(between(Field.STARTED_AT, at, at + 3 * MOMENT), between(Field.CREATED_AT, None, at)),
            lambda row: at <= started(row) < at + 3 * MOMENT and row.facts.created_at < at,
        ),
        "never ended": (Compare(Field.ENDED_AT, Op.IS_NULL), lambda row: row.facts.ended_at is None),
        "updated": (
            Compare(Field.UPDATED_AT, Op.LTE, middle.modified_at),
            lambda row: row.facts.modified_at <= middle.modified_at,
        ),
        "source": (Compare(Field.TRIGGER_SOURCE, Op.EQ, 1), lambda row: row.facts.trigger_source == 1),
        "nulls are different": (Compare(Field.PARENT, Op.NE, middle.key), lambda row: True),
        "negation": (
            Not(AnyOf((InFacets(frozenset(UNFINISHED)), Compare(Field.PARENT, Op.EQ, middle.key)))),
            lambda row: row.facet not in UNFINISHED,
        ),
        "a tree": (
            every(
                AnyOf((Compare(Field.HANDLE, Op.ILIKE, "ALPHA"), Compare(Field.INSTANCE_ID, Op.CONTAINS, "5"))),
                Not(InFacets(frozenset({Facet.COMPLETE}))),
                Compare(Field.TRANSACTION_ID, Op.NOT_IN, ["T%0"]),
            ),
            lambda row: (
                (row.facts.handle == "alpha" or "5" in row.facts.instance_id)
                and row.facet is not Facet.COMPLETE
                and row.facts.transaction_id != "T%0"
            ),
        ),
    }


ORDERS: dict[By, Callable[[Row], Any]] = {
    By.CREATED: lambda row: row.facts.key,
    By.TRANSACTION: lambda row: (row.facts.handle, row.facts.transaction_id, row.facts.key),
    By.STARTED: lambda row: (started(row), row.facts.key),
    By.ENDED: lambda row: (row.facts.ended_at is None, row.facts.ended_at, row.facts.key),
    By.UPDATED: lambda row: (row.facts.modified_at, row.facts.key),
    By.HANDLE: lambda row: (row.facts.handle, row.facts.key),
    By.TRANSACTION_ID: lambda row: (row.facts.transaction_id, row.facts.key),
    By.FACET: lambda row: (-int(row.facet), row.facts.key),
}
RANKS = {facet: -int(facet) for facet in Facet}


def expected(base: list[Row], holds: Callable[[Row], bool], search: Search) -> list[UUID]:
    rows = [row for row in base if holds(row) and (search.with_deleted or row.deleted_at is None)]
    if search.by is By.ENDED:
        ended = sorted((row for row in rows if row.facts.ended_at), key=ORDERS[By.ENDED])
        rows = ended + sorted((row for row in rows if not row.facts.ended_at), key=lambda row: row.facts.key)
    else:
        rows.sort(key=ORDERS[search.by])
    return [row.facts.key for row in (reversed(rows) if search.descending else rows)]


def keys(found: Found) -> list[UUID]:
    return [row.facts.key for row in found.rows]


async def test_every_facet_is_there(searcher: Searcher, filled: World):
    rows = await all_rows(searcher, filled)
    assert {row.facet for row in rows} == set(Facet) - {Facet.HELD_BACK}
    assert sum(row.deleted_at is not None for row in rows) >= 3


async def test_filters_mean_what_they_say(searcher: Searcher, filled: World, way: str):
    base = await all_rows(searcher, filled)
    for name, (where, holds) in cases(base).items():
        for deleted in (False, True):
            for by in (By.CREATED, By.TRANSACTION, By.STARTED):
                search = Search(where=where, limit=7, with_deleted=deleted, by=by, descending=by is not By.TRANSACTION)
                wanted = expected(base, holds, search)
                found = await searcher.search(filled.caller, search)
                assert keys(found) == wanted[:7], f"{name}, {by}, deleted {deleted}"
                assert (found.total, found.more, found.capped) == (len(wanted), len(wanted) > 7, False), name


@pytest.mark.parametrize("workflows_at_once", [1, 8])
async def test_orders_and_offsets(
    searcher: Searcher, filled: World, way: str, monkeypatch: pytest.MonkeyPatch, workflows_at_once: int
):
    monkeypatch.setattr(service, "_CHUNK", workflows_at_once)
    base = await all_rows(searcher, filled)
    for by in By:
        for descending in (False, True):
            for offset in (0, 5, 40, 100):
                search = Search(by=by, descending=descending, offset=offset, limit=9, ranks=RANKS)
                wanted = expected(base, lambda row: True, search)
                found = await searcher.search(filled.caller, search)
                assert keys(found) == wanted[offset : offset + 9], f"{by} {descending} {offset}"
                assert found.total == len(wanted) and found.more == (len(wanted) > offset + 9)


async def test_cursors_walk_both_ways_while_instances_come_and_go(searcher: Searcher, filled: World, admin, way: str):
    where = InFacets(frozenset(UNFINISHED) | {Facet.COMPLETE})
    wanted = keys(await searcher.search(filled.caller, Search(where=where, limit=1000)))
    seen: list[UUID] = []
    search = Search(where=where, limit=5)
    while True:
        found = await searcher.search(filled.caller, search)
        seen += keys(found)
        assert (found.total is None) == (search.start is not None)
        if not found.more:
            break
        search = replace(search, start=Keyset(seen[-1]))
    assert seen == wanted
    back: list[UUID] = [seen[-1]]
    await admin.execute("delete from instance where key = $1", back[0])
    while True:
        found = await searcher.search(filled.caller, replace(search, start=Keyset(back[0], backwards=True)))
        back = keys(found) + back
        if not found.more:
            break
    assert back == wanted


async def test_limits_hold_back_what_never_started(searcher: Searcher, filled: World, admin):
    fresh = [row for row in await all_rows(searcher, filled) if row.facet is Facet.ADMITTED]
    never = {row.facts.key for row in fresh if row.facts.started_at is None}
    assert never and len(never) < len(fresh)
    await admin.execute("update live set phase = 1, owner = 1 where account_id = $1 and status = 1", filled.account)
    held = Search(where=InFacets(frozenset({Facet.HELD_BACK})), limit=1000)
    admitted = replace(held, where=InFacets(frozenset({Facet.ADMITTED})))
    assert not (await searcher.search(filled.caller, held)).rows
    of_account = "update account set concurrency = $2 where account_id = $1"
    await admin.execute(of_account, filled.account, 1000)
    assert not (await searcher.search(filled.caller, held)).rows
    await admin.execute(of_account, filled.account, 1)
    assert set(keys(await searcher.search(filled.caller, held))) == never
    assert set(keys(await searcher.search(filled.caller, admitted))) == {row.facts.key for row in fresh} - never
    await admin.execute(of_account, filled.account, None)
    await admin.execute(
        "update workflow set concurrency = 1 where account_id = $1 and handle = 'beta_x'", filled.account
    )
    stuck = {row.facts.key for row in fresh if row.facts.handle == "beta_x"} & never
    for by in (By.CREATED, By.STARTED, By.TRANSACTION):
        found = await searcher.search(filled.caller, replace(held, by=by, limit=1))
        assert found.rows[0].facet is Facet.HELD_BACK and found.total == len(stuck), by
        assert set(keys(await searcher.search(filled.caller, replace(held, by=by)))) == stuck, by
        found = await searcher.search(filled.caller, replace(admitted, by=by, limit=1))
        assert found.rows[0].facet is Facet.ADMITTED and found.total == len(fresh) - len(stuck), by
        rest = {row.facts.key for row in fresh} - stuck
        assert set(keys(await searcher.search(filled.caller, replace(admitted, by=by)))) == rest, by


async def test_a_restricted_caller_sees_its_workspace(searcher: Searcher, filled: World, admin, ids):
    workspace = ids.uuid7()
    await admin.execute(
        "update workflow set workspace_id = $2 where account_id = $1 and handle = 'gamma'", filled.account, workspace
    )
    caller = replace(filled.caller, workspace_id=workspace)
    base = await all_rows(searcher, filled)
    mine = {row.facts.key for row in base if row.facts.handle == "gamma"}
    assert set(keys(await searcher.search(caller, Search(limit=1000, with_deleted=True)))) == mine
    both = every(Compare(Field.HANDLE, Op.IN, ["alpha", "gamma"]))
    assert set(keys(await searcher.search(caller, Search(where=both, limit=1000, with_deleted=True)))) == mine
    stranger = next(row.facts for row in base if row.facts.handle == "alpha" and row.deleted_at is None)
    assert not (await searcher.search(caller, Search(where=Compare(Field.KEY, Op.EQ, stranger.key)))).rows
    for find in (
        lambda: searcher.one(caller, stranger.key),
        lambda: searcher.one_by_no(caller, stranger.no),
        lambda: searcher.one_by_id(caller, stranger.workflow_key, stranger.instance_id),
        lambda: searcher.one_by_transaction(caller, stranger.workflow_key, stranger.transaction_id),
    ):
        with pytest.raises(InstanceNotFound):
            await find()


async def test_single_instances_by_every_spelling(searcher: Searcher, filled: World, other: World):
    base = await all_rows(searcher, filled)
    for row in base[:20]:
        facts = row.facts
        for deleted in (False, True):
            for found in (
                searcher.one(filled.caller, facts.key, with_deleted=deleted),
                searcher.one_by_no(filled.caller, facts.no, with_deleted=deleted),
                searcher.one_by_id(filled.caller, facts.workflow_key, facts.instance_id, with_deleted=deleted),
            ):
                if row.deleted_at is None or deleted:
                    assert await found == row
                else:
                    with pytest.raises(InstanceNotFound):
                        await found
        with pytest.raises(InstanceNotFound):
            await searcher.one(other.caller, UUID(int=facts.key.int ^ 1))
        with pytest.raises(InstanceNotFound):
            await searcher.one_by_no(other.caller, facts.no)
        with pytest.raises(InstanceNotFound):
            await searcher.one_by_id(other.caller, facts.workflow_key, facts.instance_id)
    runs = [row for row in base if row.facts.transaction_id == "T%3" and row.facts.handle == "alpha"]
    assert len(runs) > 1
    newest = max((row for row in runs if row.deleted_at is None), key=lambda row: row.facts.key)
    assert await searcher.one_by_transaction(filled.caller, newest.facts.workflow_key, "T%3") == newest
    with pytest.raises(InstanceNotFound):
        await searcher.one_by_id(filled.caller, newest.facts.workflow_key, "a\0")


async def test_journals_come_with_the_page_in_one_read(searcher: Searcher, filled: World):
    await filled.write("I_1", (Kind.STEP_STARTED, "a", 1, 1, {}), (Kind.STEP_COMPLETED, "a", 1, 1, 7))
    search = Search(where=Compare(Field.INSTANCE_ID, Op.IN, ["I_1", "I_2"]), payloads=False)
    found = await searcher.search(filled.caller, search, WHOLE)
    outputs = {
        row.facts.instance_id: [step.output for step in fold(found.journals[row.facts.key]).steps.values()]
        for row in found.rows
    }
    assert outputs == {"I_1": ["7"], "I_2": []}
    assert all(row.facts.input is None for row in found.rows)


async def test_what_would_take_too_long_is_refused(searcher: Searcher, filled: World, monkeypatch):
    monkeypatch.setattr(service, "SMALL", 0)
    monkeypatch.setattr(service, "SCAN", 10)
    rare = Search(where=Compare(Field.INSTANCE_ID, Op.CONTAINS, "I_1"), limit=3)
    with pytest.raises(InvalidRequest, match="narrow the filter"):
        await searcher.search(filled.caller, rare)
    frequent = await searcher.search(filled.caller, replace(rare, where=Compare(Field.INSTANCE_ID, Op.CONTAINS, "I_")))
    assert len(frequent.rows) == 3 and frequent.capped
    newest = await searcher.search(filled.caller, replace(rare, where=Compare(Field.INSTANCE_ID, Op.CONTAINS, "I_5")))
    assert newest.capped and newest.total is not None and newest.total > len(newest.rows), "fewer than are shown"
    for by in (By.UPDATED, By.FACET, By.ENDED, By.HANDLE, By.TRANSACTION_ID):
        with pytest.raises(InvalidRequest, match="narrow the filter"):
            await searcher.search(filled.caller, Search(by=by))


@pytest.mark.parametrize("few", [0, 4, statements.FEW])
async def test_what_is_behind_very_many_others_is_found(searcher: Searcher, filled: World, monkeypatch, few: int):
    """However many others an index has before them; `few`: how many of a half are counted before the other one is."""
    rare = [facet for facet in Facet if facet.status.finished]
    base = await all_rows(searcher, filled)
    monkeypatch.setattr(service, "SMALL", 0)
    monkeypatch.setattr(service, "SCAN", 1)
    monkeypatch.setattr(statements, "FEW", few)
    for facet in rare:
        for by in (By.CREATED, By.STARTED):
            for descending in (False, True):
                search = Search(where=InFacets(frozenset({facet})), by=by, descending=descending, limit=3)
                wanted = expected(base, of({facet}), search)
                found = await searcher.search(filled.caller, search)
                assert (keys(found), found.total) == (wanted[:3], len(wanted)), f"{facet.name} {by} {descending}"


async def test_reading_needs_the_scope(searcher: Searcher, filled: World):
    with pytest.raises(NotAllowed):
        await searcher.search(replace(filled.caller, scopes=frozenset()), Search())
    with pytest.raises(NotAllowed):
        await searcher.one(replace(filled.caller, scopes=frozenset()), UUID(int=1))


# --- at scale ----------------------------------------------------------------------------------------------------

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
# 30,000 that have ended, 600 that wait, 30 that were begun and are queued again, 6,000 that were never begun.
MANY = """
with n as (
  select g, ($2::uuid[])[1 + g % 3] as workflow, g % 100 as f,
         (lpad(to_hex(1767225600000 + 1000 * g), 12, '0') || '7000' || '8' || lpad(to_hex(g), 15, '0'))::uuid as key,
         timestamptz '2026-01-01 00:00:00Z' + g * interval '1 second' as at
  from generate_series(1::bigint, 36630) g
), hot as (
  insert into live (account_id, key, workflow_key, runtime, status, phase, epoch, seq, modified_at, started_at)
  select $1, key, workflow, 1, case when g > 30600 then 0 else 2 end, case when g > 30600 then 0 else 2 end, g, 9, at,
         case when g <= 30630 then at end
  from n where g > 30000
)
insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, status, rollback,
  success_retention_ms, error_retention_ms, created_at, started_at, ended_at)
select $1, key, workflow, workflow, 'I_' || g, 'T' || g,
  case when g > 30000 then 0 when f < 80 then 6 when f < 95 then 7 else 8 end,
  case when g <= 30000 and f in (86, 97) then '{"outcome":"complete","error":null}' end, 1, 1, at,
  case when g <= 30000 then at end, case when g <= 30000 then at end
from n
"""
ENDED = InFacets(facets_of([Status.COMPLETE]))
REVERTED = InFacets(frozenset({Facet.ERRORED_REVERTED}))
ALPHA = Compare(Field.HANDLE, Op.EQ, "alpha")
HOUR = between(Field.STARTED_AT, BEGIN + timedelta(hours=2), BEGIN + timedelta(hours=3))
WAITING, HELD = InFacets(frozenset({Facet.ADMITTED, Facet.WAITING})), InFacets(frozenset({Facet.HELD_BACK}))
ADMITTED = InFacets(frozenset({Facet.ADMITTED}))


@pytest.mark.parametrize(
    ("search", "pages", "analyzed"),
    [
        (Search(counted=False), 40, True),
        (Search(where=ALPHA, counted=False), 40, True),
        (Search(where=ENDED, by=By.TRANSACTION, descending=False, counted=False), 100, True),
        (Search(where=ALPHA, by=By.STARTED, counted=False), 40, True),
        (Search(where=every(ALPHA, WAITING), by=By.STARTED, counted=False), 4, True),
        (Search(where=every(ALPHA, HOUR), by=By.STARTED, counted=False), 20, True),
        (Search(where=every(HOUR, REVERTED), by=By.STARTED, descending=False, counted=False), 100, True),
        (Search(where=every(ALPHA, HELD), counted=False), 4, True),
        (Search(where=every(ALPHA, ADMITTED)), 15, True),
        (Search(where=every(ALPHA, REVERTED)), 10, True),
        (Search(where=REVERTED), 20, True),
        (Search(where=REVERTED, by=By.HANDLE, counted=False), 60, True),
        (Search(where=Compare(Field.TRANSACTION_ID, Op.EQ, "T7")), 40, True),
        (Search(where=Compare(Field.TRANSACTION_ID, Op.EQ, "T7")), 40, False),
        (Search(where=Compare(Field.INSTANCE_ID, Op.EQ, "I_7")), 40, False),
        (Search(where=ENDED, by=By.TRANSACTION, descending=False, counted=False), 100, False),
        (Search(where=ALPHA, by=By.STARTED, counted=False), 400, False),
        (Search(where=Compare(Field.INSTANCE_ID, Op.CONTAINS, "I_"), counted=False), 40, True),
    ],
)
async def test_a_page_reads_little_of_a_large_table(
    searcher: Searcher, world: World, admin, monkeypatch, search: Search, pages: int, analyzed: bool
):
    """Counted in rows fetched from the table, per statement of the search."""
    workflows = [await world.workflow(handle) for handle in ("alpha", "beta_x", "gamma")]
    await admin.execute(MANY, world.account, workflows)
    for number in range(40):
        await world.workflow(f"other-{number}")
    await world.count()
    if analyzed:
        await admin.execute("vacuum analyze instance, live")
    await admin.execute("update workflow set concurrency = 0 where account_id = $1 and handle = 'alpha'", world.account)
    monkeypatch.setattr(service, "SMALL", 200)
    asked: list[tuple[str, list[Any]]] = []

    def noting(real: Callable[..., Any]) -> Callable[..., Any]:
        async def ask(connection, statement, parameters):
            asked.append((statement, parameters.values))
            return await real(connection, statement, parameters)

        return ask

    for name in ("keys", "number"):
        monkeypatch.setattr(service.store, name, noting(getattr(service.store, name)))
    found = await searcher.search(world.caller, replace(search, limit=20))
    one = isinstance(search.where, Compare) and search.where.op is Op.EQ and search.where.field is not Field.HANDLE
    assert len(found.rows) == (1 if one else 10 if ADMITTED in getattr(search.where, "parts", ()) else 20)
    await admin.execute("begin")
    await admin.execute(service.store.CONFINE)
    for statement, values in asked:
        plan = await admin.fetchval(f"explain (analyze, format json) {statement}", *values)
        assert sum(fetched(json.loads(plan)[0]["Plan"])) < pages * 20
    await admin.execute("rollback")


def fetched(plan: dict[str, Any]) -> list[float]:
    """Rows each scan of instances or live rows gave, or threw away."""
    own = plan.get("Relation Name") in ("instance", "live") or plan.get("Index Name", "").startswith("instance_")
    rows = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"] if own else 0
    return [rows, *(row for part in plan.get("Plans", ()) for row in fetched(part))]
