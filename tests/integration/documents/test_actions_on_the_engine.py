"""Lists of actions on the real engine, by a clock that is moved by hand: when attempts begin, what timeouts spare."""

from __future__ import annotations

from typing import Any

import pytest

from instances.lifecycle import Kind, Status
from tests.support.forms import document_of
from versions.document import encode_document

FAIL = {"type": "call_api", "config": {"url": "http://127.0.0.1:1/"}}
AFTER = {"type": "set", "config": {"values": {"n": 1}}}


async def deploy(documents: Any, handle: str, actions: list[dict[str, Any]]) -> None:
    await documents.deploy(handle, [{"id": "replaced"}])
    source = encode_document(document_of("004", {"name": handle, "actions": actions}))
    await documents.engine.admin.execute(
        "update version set source = $1 where account_id = $2 and version_key ="
        " (select current_version from workflow where account_id = $2 and handle = $3)",
        source, documents.engine.account, handle,
    )  # fmt: skip


async def test_retries_come_after_one_two_and_four_seconds(documents):
    await deploy(documents, "retried", [{**FAIL, "onError": "retry"}, AFTER])
    engine = documents.engine
    await engine.worker()
    key = await documents.start("retried")
    begun = engine.clock.now()
    for failures, seconds in enumerate((1, 2, 4), 1):
        await engine.written(key, Kind.ATTEMPT_FAILED, failures)
        await engine.advance(seconds)
    row = await engine.until(key, Status.ERRORED)
    assert row["error"] is not None
    journal = await engine.journal(key)
    starts = [one for one in journal if one["kind"] in (Kind.STEP_STARTED, Kind.ATTEMPT_STARTED)]
    assert {one["name"] for one in starts} == {"action-0"}
    assert [round((one["at"] - begun).total_seconds()) for one in starts] == [0, 1, 3, 7]


@pytest.mark.parametrize("early", [False, True])
async def test_a_wait_is_not_limited_by_the_timeout_of_actions(documents, early: bool):
    await deploy(documents, "waits", [{"type": "wait", "config": {"durationMs": 60_000}}, AFTER])
    engine = documents.engine
    await engine.worker()
    key = await documents.start("waits")
    await engine.until(key, Status.WAITING)
    await engine.advance(59 if early else 60)
    if early:
        assert Kind.SLEEP_COMPLETED not in [row["kind"] for row in await engine.journal(key)]
        await engine.advance(1)
    row = await engine.until(key, Status.COMPLETE)
    assert row["output"] == '{"n":1}'
