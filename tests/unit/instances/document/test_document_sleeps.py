"""Sleeps of documents."""

from datetime import timedelta

import pytest

from instances.runtimes.protocol import (
    CancelTimer,
    Do,
    Sleep,
    StepKind,
    Timer,
)
from tests.support.document_runs import START, drive, event, noop, wait


@pytest.mark.parametrize(
    ("config", "milliseconds"),
    [
        ({}, 1000),
        ({"durationMs": 250}, 250),
        ({"duration": "2 minutes"}, 120_000),
        ({"durationMs": "{{ trigger.ms }}"}, 4500),
        ({"duration": "{{ trigger.n }} seconds"}, 3000),
        ({"durationMs": "{{ trigger.zero }}"}, 0),
    ],
)
async def test_wait(config, milliseconds):
    run = await drive([wait("w", config=config), noop("a", "w")], input={"ms": 4500.0, "n": 3, "zero": 0})
    [sleep] = [c for c in run.commands if isinstance(c, Sleep)]
    assert (sleep.key.kind, sleep.key.name, sleep.duration) == (StepKind.SLEEP, "w", milliseconds)
    await run.finish()
    assert run.now == START + timedelta(milliseconds=milliseconds)
    assert run.started() == ["a"]


async def test_the_output_of_a_wait():
    run = await (await drive([wait("w", config={"durationMs": 250})])).finish()
    assert run.output == {"waited": True, "durationMs": 250}


async def test_outputs_reshape_a_wait():
    run = await (await drive([wait("w", outputs={"ms": "{{ result.durationMs }}"})])).finish()
    assert run.output == {"ms": 1000}
    await run.check_replay()


@pytest.mark.parametrize("value", ["{{ `-1` }}", "{{ 'soon' }}", "{{ trigger }}", "{{ `1e12` }}"])
async def test_a_wait_that_makes_no_sense_fails(value):
    run = await drive([wait("w", config={"durationMs": value}, retries={"limit": 2})])
    assert run.error.name == "INVALID_CONFIG"
    assert run.started() == ["w"]
    assert run.executed == [("w-1", 1)]


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        ("2026-01-01T00:00:30Z", 30),
        ("2026-01-01T02:00:30+02:00", 30),
        ("2026-01-02", 86_400),
        (1767225630000, 30),
        ("{{ trigger.at }}", 30),
        ("2020-01-01", 0),
    ],
)
async def test_wait_until(at, seconds):
    run = await (
        await drive([wait("w", type="wait_until", config={"at": at})], input={"at": "2026-01-01T00:00:30Z"})
    ).finish()
    assert run.now == START + timedelta(seconds=seconds)
    assert run.output == {"waited": True, "durationMs": seconds * 1000}


@pytest.mark.parametrize("at", ["{{ 'never' }}", "{{ `true` }}", "{{ `1e20` }}", "{{ missing }}"])
async def test_wait_until_nonsense(at):
    run = await drive([wait("w", type="wait_until", config={"at": at})])
    assert run.error.name == "INVALID_CONFIG"


async def test_a_sleep_that_cannot_be_rendered_is_a_failed_step():
    run = await drive([wait("w", config={"durationMs": "{{ trigger.x > 'a' }}"}, on_error="continue")], input={"x": 1})
    [do] = [c for c in run.commands if isinstance(c, Do)]
    assert (do.key.kind, do.key.name, do.immediate) == (StepKind.DO, "w", True)
    await run.check_replay()


async def test_total_timeout_of_a_sleep():
    run = await drive(
        [wait("w", config={"duration": "1 hour"}, total_timeout=5000, on_error="continue"), noop("a", "w")]
    )
    await run.advance(4)
    assert run.started() == []
    await run.advance(2)
    assert run.cancelled() == ["w"]
    assert run.started() == ["a"]
    await run.check_replay()


async def test_a_finished_sleep_takes_its_timer_along():
    run = await drive([wait("w", config={"durationMs": 10}, total_timeout=5000), event("e")])
    await run.advance(1)
    assert [c for c in run.commands if isinstance(c, (Timer, CancelTimer))] == [
        Timer("total:w-1", 5000),
        CancelTimer("total:w-1"),
    ]
