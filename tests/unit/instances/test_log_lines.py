"""Log lines: the code's own, and the engine's."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from instances.lifecycle import Kind
from instances.projections.log_lines import LEVELS, kinds_of_level, log_lines
from tests.support.journal import CONFIG, Journal


def lines(journal: Journal, level: str = "debug") -> list[dict[str, Any]]:
    return [json.loads(msgspec.json.encode(line)) for line in log_lines(journal.entries, level)]


def test_console_lines():
    journal = Journal()
    journal.add(Kind.LOG, "fetch-2", {"level": "warn", "message": "slow", "data": {"ms": 9}}, attempt=3)
    journal.add(Kind.LOG, None, {"level": "shout", "message": "outside any step"})
    assert lines(journal) == [
        {
            "id": 1,
            "timestamp": "2026-10-01T08:00:01.000Z",
            "level": "warn",
            "source": "console",
            "message": "slow",
            "step": "fetch-2",
            "attempt": 3,
            "data": {"ms": 9},
        },
        {
            "id": 2,
            "timestamp": "2026-10-01T08:00:02.000Z",
            "level": "info",
            "source": "console",
            "message": "outside any step",
        },
    ]


@pytest.mark.parametrize(
    ("kind", "name", "payload", "level", "message", "step"),
    [
        (Kind.STARTED, None, None, "info", "Instance started", None),
        (Kind.STEP_STARTED, "a", {"config": CONFIG}, "debug", "Step started", "a-1"),
        (
            Kind.ATTEMPT_FAILED,
            "a",
            {"name": "Error", "message": "busy", "delay": 500},
            "warn",
            "Attempt failed: Error: busy (next attempt in 500 ms)",
            "a-1",
        ),
        (Kind.STEP_FAILED, "a", {"name": "Error", "message": "no"}, "error", "Step failed: Error: no", "a-1"),
        (Kind.STEP_SKIPPED, "a", {"reason": "condition"}, "info", "Step skipped: condition", "a-1"),
        (Kind.SLEEP_COMPLETED, "a", None, "info", "Sleep completed", "a-1"),
        (Kind.SLEEP_COMPLETED, "a", {"name": "E", "message": "m"}, "info", "Sleep cut off: E: m", "a-1"),
        (Kind.STEP_WAITING, "a", None, "info", "Waiting for its completion from outside (step:a)", "a-1"),
        (Kind.EVENT_RECEIVED, "go", "not json", "info", "Event go received", None),
        (Kind.RESTARTED, None, {"from_seq": 2}, "info", "Restarted", None),
        (Kind.RESTARTED, None, {"from_seq": 7}, "info", "Restarted from a step", None),
        (
            Kind.ROLLBACK_STARTED,
            None,
            {"name": "Error", "message": "boom"},
            "warn",
            "Rollback started after Error: boom",
            None,
        ),
        (Kind.ROLLBACK_ENDED, None, {"outcome": "complete"}, "info", "Rollback complete", None),
        (
            Kind.ROLLBACK_ENDED,
            None,
            {"outcome": "failed", "error": {"name": "E", "message": "m"}},
            "info",
            "Rollback failed: E: m",
            None,
        ),
        (Kind.ERRORED, None, {"name": "Error", "message": "x"}, "error", "Instance failed: Error: x", None),
        (Kind.MILESTONE, "half", None, "info", "Milestone half reached", None),
        (Kind.SYNC_POINT, "gate", {"state": "failed"}, "info", "Synchronisation point gate failed", None),
    ],
)
def test_engine_lines(kind: Kind, name: str | None, payload: Any, level: str, message: str, step: str | None):
    journal = Journal()
    journal.add(kind, name, payload)
    (line,) = lines(journal)
    assert (line["level"], line["message"], line["source"], line.get("step")) == (level, message, "engine", step)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.LOG, Kind.EVENT_RECEIVED)])
def test_every_kind_reads_without_a_payload(kind: Kind):
    journal = Journal()
    journal.add(kind, "a")
    assert len(lines(journal)) <= 1


def test_minimum_level():
    journal = Journal()
    for level in LEVELS:
        journal.add(Kind.LOG, None, {"level": level, "message": level})
    journal.add(Kind.STARTED)
    journal.add(Kind.ERRORED, None, {"name": "E", "message": "m"})
    assert [line["id"] for line in lines(journal)] == [1, 2, 3, 4, 5, 6]
    assert [line["id"] for line in lines(journal, "info")] == [2, 3, 4, 5, 6]
    assert [line["id"] for line in lines(journal, "warn")] == [3, 4, 6]
    assert [line["id"] for line in lines(journal, "error")] == [4, 6]


def test_kinds_to_read_for_a_level():
    assert Kind.LOG in kinds_of_level("error")
    assert Kind.STARTED in kinds_of_level("info")
    assert Kind.STARTED not in kinds_of_level("warn")
    assert set(kinds_of_level("error")) < set(kinds_of_level("warn")) < set(kinds_of_level("info"))


def test_lone_surrogates_in_what_was_logged():
    journal = Journal()
    journal.add(Kind.LOG, None, r'{"level":"info","message":"x","data":"\ud800"}')
    assert lines(journal)[0]["data"] == "\ufffd"
