"""The plans of what is asked often: an index gives the rows in order, whatever the tables hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from instances import store
from tests.support.instances import World

FILL = """
with n as (
  select g, $1::uuid as account, ($2::uuid[])[1 + g % cardinality($2)] as workflow,
         (lpad(to_hex(1767225600000 + g), 12, '0') || '7000' || '8' || lpad(to_hex(g), 15, '0'))::uuid as key,
         timestamptz '2026-01-01 00:00:00Z' + g * interval '1 second' as at
  from generate_series(1, $3::int) g
), made as (
  insert into instance (account_id, key, workflow_key, version_key, instance_id, transaction_id, status, input,
    success_retention_ms, error_retention_ms, created_at, ended_at)
  select account, key, workflow, workflow, 'i' || g, 'i' || g, case when g % 5 < 3 then 6 + g % 3 else 0 end, '{}',
         1, 1, at, at
  from n
), hot as (
  insert into live (account_id, key, workflow_key, runtime, status, phase, ready_at, epoch, seq, modified_at)
  select account, key, workflow, 1, 2 + g % 2, 2 + g % 2, at, g, 9, at
  from n where g % 5 >= 3
)
insert into journal (account_id, key, seq, run, kind, at)
select account, key, s, 1, 0, at from n, generate_series(1, 4) s
"""


def nodes(plan: dict[str, Any], under: tuple[str, ...] = ()) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Every node of a plan, with the types of the nodes above it."""
    yield plan, under
    for child in plan.get("Plans", ()):
        yield from nodes(child, (*under, plan["Node Type"]))


async def generic_plan(connection: asyncpg.Connection, statement: str) -> dict[str, Any]:
    """The plan PostgreSQL keeps for a statement it has seen often, as the api role."""
    parameters = statement.count("$") and max(
        int(part[: len(part) - len(part.lstrip("0123456789"))]) for part in statement.split("$")[1:]
    )
    await connection.execute("set role millrace_api")
    await connection.execute("set plan_cache_mode = force_generic_plan")
    await connection.execute(f"prepare asked as {statement}")
    try:
        nulls = ", ".join(["null"] * parameters)
        text = await connection.fetchval(f"explain (format json) execute asked({nulls})")
    finally:
        await connection.execute("deallocate asked")
        await connection.execute("reset plan_cache_mode")
        await connection.execute("reset role")
    return json.loads(str(text))[0]["Plan"]


STATEMENTS = {
    "locate": store.LOCATE,
    "locate many": store.LOCATE_MANY,
    "read": store.READ,
    "read by key": store.READ_BY_KEY,
    "log entries": store.LOG_ENTRIES,
    "log state": store.LOG_STATE,
    "entry heads": store.ENTRY_HEADS,
    "event received": store.EVENT_RECEIVED,
    **{f"list {shape} {'asc' if asc else 'desc'}": text for (shape, asc), text in store.LISTS.items()},
    **{f"count {shape}": text for shape, text in store.COUNTS.items()},
}
LIST_INDEXES = {"all": "instance_list", "ended": "instance_status", "unfinished": "live_status"}
BIG = frozenset({"instance", "live", "journal"})


@pytest.fixture
async def filled(world: World, admin: asyncpg.Connection) -> asyncpg.Connection:
    workflows = [await world.workflow(f"w{n}") for n in range(4)]
    await admin.execute(FILL, world.account, workflows, 10_000)
    await admin.execute("analyze instance, live, journal, workflow")
    return admin


async def test_no_statement_reads_a_table_through(filled: asyncpg.Connection):
    for name, statement in STATEMENTS.items():
        for node, _ in nodes(await generic_plan(filled, statement)):
            assert not (node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG), name


async def test_lists_come_in_order_from_their_index(filled: asyncpg.Connection):
    for (shape, ascending), statement in store.LISTS.items():
        plan = await generic_plan(filled, statement)
        sorts = [under for node, under in nodes(plan) if "Sort" in node["Node Type"]]
        assert all("Limit" not in under for under in sorts), f"{shape} {ascending}: sorts more than a page"
        used = {node.get("Index Name"): node for node, under in nodes(plan) if "Limit" in under}
        node = used[LIST_INDEXES[shape]]
        # Index order is newest first, except that a scan may run backwards.
        assert node["Node Type"] in ("Index Scan", "Index Only Scan")
        assert node["Scan Direction"] == ("Backward" if ascending else "Forward")
        assert "key >=" in node["Index Cond"] and "key <=" in node["Index Cond"]


async def test_counts_need_the_index_alone(filled: asyncpg.Connection):
    await filled.execute("vacuum instance, live")
    for shape, statement in store.COUNTS.items():
        kinds = {node.get("Index Name"): node["Node Type"] for node, _ in nodes(await generic_plan(filled, statement))}
        assert kinds[LIST_INDEXES[shape]] == "Index Only Scan"


async def test_one_instance_is_found_by_its_keys(filled: asyncpg.Connection):
    for statement, keys in ((store.LOCATE, {"instance_uid"}), (store.READ, {"instance_uid", "live_pkey"})):
        used = {node.get("Index Name") for node, _ in nodes(await generic_plan(filled, statement))}
        assert keys <= used
    assert "journal_pkey" in {node.get("Index Name") for node, _ in nodes(await generic_plan(filled, store.READ))}
