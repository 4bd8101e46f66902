"""Retries of nodes, as the driver gets them."""

import pytest

from instances.runtimes.protocol import (
    Do,
    Failure,
    StepFailure,
)
from tests.support.document_runs import call, drive, ok, sets
from versions.expressions import decode_json


async def test_retry_policy_reaches_the_driver():
    retries = {"limit": 4, "delay": "2 seconds", "backoff": "linear", "max_delay": "1 minute", "jitter": 0.5,
               "multiplier": 3}  # fmt: skip
    run = await drive([call("a", retries=retries, timeout=7000, total_timeout=9000)], perform=ok)
    [do] = [c for c in run.commands if isinstance(c, Do)]
    retry = do.retry
    assert (retry.limit, retry.delay, retry.backoff, retry.multiplier) == (4, 2000, "linear", 3)
    assert (retry.max_delay, retry.jitter) == (60_000, 0.5)
    assert (do.timeout, do.total_timeout) == (7000, 9000)
    assert decode_json(do.config) == {
        "type": "call_api",
        "config": {"retries": {"limit": 4, "delay": 2000, "backoff": "linear"}, "timeout": 7000},
    }


@pytest.mark.parametrize(
    ("condition", "attempts"),
    [
        ("error.message == 'no'", 3),
        ("error.code == 'X'", 1),
        ({"field": "error.output.status", "operator": "gte", "value": 500}, 3),
        ("error.output.status > 'a'", 1),
    ],
)
async def test_retries_when(condition, attempts):
    async def perform(_do, _attempt):
        raise StepFailure(Failure("Error", "no", output='{"status":503}'))

    node = call("a", retries={"limit": 2, "delay": 0, "when": condition})
    run = await (await drive([node], perform=perform)).finish()
    assert len(run.executed) == attempts


async def test_a_failed_call_keeps_its_output():
    async def perform(_do, _attempt):
        raise StepFailure(Failure("Error", "no", output='{"status":503}'))

    nodes = [call("a", on_error="continue"), sets("b", "a", values={"s": "{{ steps.a.output.status }}"})]
    run = await drive(nodes, perform=perform)
    assert run.output == {"s": 503}


async def test_templates_are_rendered_as_the_run_stood_at_the_start():
    seen = []

    async def perform(do, _attempt):
        seen.append(do.data.body.config.render(do.data.scope))
        raise StepFailure(Failure("Error", "again"))

    nodes = [
        call("a", config={"url": "https://{{ vars.host }}/"}, retries={"limit": 1, "delay": 1000}),
        sets("b", values={"host": "new.example"}),
    ]
    await (await drive(nodes, vars={"host": "old.example"}, perform=perform)).finish()
    assert seen == [{"url": "https://old.example/"}] * 2
