"""Sync points and milestones; dry runs."""

from instances.lifecycle import Kind
from instances.runtimes.protocol import (
    CancelTimer,
    Finish,
    Record,
)
from tests.support.document_runs import START, call, drive, event, fails, noop, run_context, wait
from versions.expressions import decode_json

# --- sync points -------------------------------------------------------------------------------------------------


def sync_states(run):
    return [
        (c.name, c.count, decode_json(c.payload or "{}")["state"])
        for c in run.commands
        if isinstance(c, Record) and c.kind == Kind.SYNC_POINT
    ]


async def test_a_sync_point_is_reached_then_completed():
    nodes = [noop("a"), {"id": "x", "type": "external"}, noop("b", "s")]
    run = await drive(nodes, sync_points=[{"id": "s", "required": ["a", "x"]}])
    assert sync_states(run) == [("s", 1, "reached")]
    assert run.started() == ["a", "x"]
    await run.complete("x")
    assert sync_states(run) == [("s", 1, "reached"), ("s", 2, "completed")]
    assert run.started() == ["a", "x", "b"]
    await run.check_replay()


async def test_skipped_nodes_count_for_a_sync_point():
    run = await drive([noop("a", when="`false`"), noop("b", "s")], sync_points=[{"id": "s", "required": ["a"]}])
    assert run.started() == ["b"]


async def test_a_sync_point_times_out_from_the_start_of_its_first_node():
    nodes = [wait("w", config={"durationMs": 5000}), {"id": "x", "type": "external", "depends_on": ["w"]}]
    sync = [{"id": "s", "required": ["x"], "timeout": 2000}]
    run = await (await drive(nodes, sync_points=sync)).advance(6)
    assert isinstance(run.end, type(None))
    await run.advance(2)
    assert sync_states(run) == [("s", 3, "failed")]
    assert run.rollback is None, "the outside step in flight may still finish"
    await run.complete("x")
    assert run.error.name == "SYNC_POINT_TIMEOUT"
    await run.check_replay()


async def test_a_sync_timeout_may_be_continued():
    nodes = [{"id": "x", "type": "external"}, noop("b", "s")]
    sync = [{"id": "s", "required": ["x"], "timeout": 2000, "on_timeout": "continue"}]
    run = await (await drive(nodes, sync_points=sync)).advance(3)
    assert run.started() == ["x", "b"]
    await run.complete("x")
    assert sync_states(run) == [("s", 3, "failed"), ("s", 1, "reached")]
    assert isinstance(run.end, Finish)


async def test_a_sync_point_in_time_cancels_its_timer():
    nodes = [{"id": "x", "type": "external"}, wait("w", config={"duration": "1 hour"})]
    run = await drive(nodes, sync_points=[{"id": "s", "required": ["x"], "timeout": 2000}])
    await run.complete("x")
    await run.finish()
    assert isinstance(run.end, Finish)
    assert CancelTimer("sync:s") in run.commands


async def test_a_required_node_that_failed_fails_the_sync_point():
    nodes = [fails("a", on_error="continue"), noop("b", "s"), noop("c", "s", join="all_done")]
    run = await drive(nodes, sync_points=[{"id": "s", "required": ["a"]}])
    assert sync_states(run) == [("s", 1, "reached"), ("s", 3, "failed")]
    assert run.skipped() == {"b": "failure"}
    assert run.started() == ["a", "c"]


# --- milestones --------------------------------------------------------------------------------------------------


async def test_milestones_after_nodes_and_sync_points():
    nodes = [noop("a"), {"id": "x", "type": "external"}, noop("b", "x")]
    run = await drive(
        nodes,
        sync_points=[{"id": "s", "required": ["a", "x"]}],
        milestones=[{"id": "first", "after": ["a"]}, {"id": "all", "after": ["s", "b"]}],
    )
    assert run.records(Kind.MILESTONE) == ["initialization", "first"]
    await run.complete("x")
    assert run.records(Kind.MILESTONE) == ["initialization", "first", "all"]


async def test_milestones_of_a_document_without_any():
    run = await drive([noop("a")], sync_points=[{"id": "s", "required": ["a"]}])
    assert run.records(Kind.MILESTONE) == ["initialization", "s", "completion"]
    assert isinstance(run.commands[-1], Finish)


async def test_a_failed_node_achieves_nothing():
    run = await drive([fails("a", on_error="continue")], milestones=[{"id": "m", "after": ["a"]}])
    assert run.records(Kind.MILESTONE) == ["initialization"]


# --- dry runs ----------------------------------------------------------------------------------------------------


async def test_a_dry_run_touches_nothing_and_waits_for_nobody():
    nodes = [
        {"id": "n", "type": "send_notification", "config": {"message": "hi"}},
        {"id": "t", "type": "create_task", "config": {"title": "do"}},
        call("c"),
        wait("w", config={"duration": "1 day"}),
        wait("u", type="wait_until", config={"at": "2030-01-01"}),
        event("e"),
        {"id": "x", "type": "external"},
        {"id": "child", "type": "workflow", "config": {"workflow": "w"}},
    ]
    run = await drive(nodes, run=run_context(trigger={"source": "api", "dryRun": True}))
    await run.finish()
    assert run.now == START
    output = run.output
    assert output["n"] == {
        "notificationSent": True,
        "message": "hi",
        "recipient": "user-7",
        "timestamp": "2026-01-01T00:00:00.000Z",
    }
    assert output["t"]["status"] == "TODO"
    assert output["c"] == {"status": 200, "statusText": "OK", "data": None}
    assert output["w"] == {"waited": True, "durationMs": 86_400_000}
    assert output["e"] is None
    assert output["child"] is None
