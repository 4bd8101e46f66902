"""One step in full."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from instances.lifecycle import Kind, Status
from instances.projections.fold import fold
from instances.projections.step_view import StepDetail, find_step, step_detail
from instances.projections.values import StoredStream
from tests.support.journal import CONFIG, Journal


def detail(
    journal: Journal, name: str = "a-1", kind: str = "step", status: Status = Status.RUNNING, attempt: int | None = None
) -> Any:
    step = find_step(fold(journal.entries), name, kind)
    if step is None:
        return "no such step"
    found = step_detail(step, status, attempt)
    return json.loads(msgspec.json.encode(found)) if isinstance(found, StepDetail) else found


@pytest.fixture
def retried() -> Journal:
    """`a`: failed, interrupted, then running for the second time."""
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    journal.add(Kind.ATTEMPT_FAILED, "a", {"name": "Error", "message": "busy"}, attempt=1)
    journal.add(Kind.ATTEMPT_STARTED, "a", attempt=2)
    journal.add(Kind.ATTEMPT_INTERRUPTED, "a", attempt=2)
    journal.add(Kind.ATTEMPT_STARTED, "a", attempt=2)
    return journal


BUSY = {"name": "Error", "message": "busy"}


def test_output_is_whole():
    journal = Journal().begin()
    value = {"long": "x" * 5000}
    journal.step("a", value)
    assert detail(journal) == {"status": "complete", "error": None, "output": value}


def test_running_and_retrying(retried: Journal):
    assert detail(retried) == {"status": "running", "error": None}
    retried.add(Kind.ATTEMPT_FAILED, "a", {"name": "Error", "message": "again"}, attempt=2)
    assert detail(retried) == {"status": "running", "error": {"name": "Error", "message": "again"}}


@pytest.mark.parametrize(
    ("attempt", "shown"),
    [(1, {"status": "errored", "error": BUSY}), (2, {"status": "running", "error": None}), (3, None)],
)
def test_one_attempt(retried: Journal, attempt: int, shown: Any):
    assert detail(retried, attempt=attempt) == shown


def test_attempts_of_a_completed_step(retried: Journal):
    retried.add(Kind.STEP_COMPLETED, "a", 7, attempt=2)
    assert detail(retried, attempt=1) == {"status": "errored", "error": BUSY}
    assert detail(retried, attempt=2) == {"status": "complete", "error": None, "output": 7}


def test_failed_step():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    journal.add(Kind.STEP_FAILED, "a", BUSY)
    assert detail(journal) == {"status": "errored", "error": BUSY}
    assert detail(journal, attempt=1) == {"status": "errored", "error": BUSY}


def test_output_of_nothing_is_null_and_sensitive_output_is_hidden():
    journal = Journal().begin()
    journal.step("a")
    journal.step("b", '"secret"', sensitive=True)
    assert detail(journal) == {"status": "complete", "error": None, "output": None}
    assert detail(journal, "b-1") == {"status": "complete", "error": None, "output": "[REDACTED]"}


def test_a_stream_is_named():
    journal = Journal().begin()
    stream = StoredStream("a", 1, 1, 1, 3, "abc")
    journal.step("a", stream.stored())
    assert detail(journal) == stream


def test_a_sensitive_stream_is_redacted():
    journal = Journal().begin()
    journal.step("a", StoredStream("a", 1, 1, 1, 3, "abc").stored(), sensitive=True)
    assert detail(journal)["output"] == "[REDACTED]"


def test_wait():
    journal = Journal().begin()
    journal.add(Kind.WAIT_STARTED, "ok", {"due": journal.due(10), "type": "go"})
    assert detail(journal, "ok-1", "waitForEvent") == {"status": "waiting", "error": None, "event_type": "go"}
    event = {"payload": 1, "timestamp": "2026-10-01T08:00:02.000Z", "type": "go"}
    journal.add(Kind.WAIT_COMPLETED, "ok", event)
    whole = {"status": "complete", "error": None, "event_type": "go", "output": event}
    assert detail(journal, "ok-1", "waitForEvent") == whole
    assert detail(journal, "ok-1", "waitForEvent", attempt=1) == whole
    assert detail(journal, "ok-1", "waitForEvent", attempt=2) is None
    assert detail(journal, "ok-1", "step") == "no such step"


def test_step_still_open_when_the_instance_ended():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    journal.add(Kind.TERMINATED)
    assert detail(journal, status=Status.TERMINATED) == {"status": "terminated", "error": None}


@pytest.mark.parametrize("name", ["a", "a-2", "-1", "", "b-1", "skipped-1"])
def test_unknown_names(name: str):
    journal = Journal().begin()
    journal.step("a")
    journal.add(Kind.STEP_SKIPPED, "skipped", {"reason": "x"})
    assert detail(journal, name) == "no such step"


def test_name_that_ends_in_a_number():
    journal = Journal().begin()
    journal.step("a-1", 1, count=2)
    assert detail(journal, "a-1-2")["output"] == 1
