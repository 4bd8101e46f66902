"""What subscribers of an instance are told of its status while it runs and waits."""

from __future__ import annotations

import pytest

from instances.lifecycle import Kind
from instances.projections.instance_events import KINDS, PER_ENTRY, TYPES, InstanceEvents
from tests.support.journal import CONFIG, Journal

LATER = {"name": "Error", "message": "busy", "delay": 10_000}


def told(journal: Journal) -> list[str]:
    """Types of the events, `workflow_` left out."""
    events = InstanceEvents(None)
    numbers: list[int] = []
    types: list[str] = []
    for entry in journal.entries:
        if entry.kind in KINDS:
            for number, (kind, _, _) in events.of(entry):
                assert number // PER_ENTRY == entry.seq
                assert kind in TYPES
                numbers.append(number)
                types.append(kind.removeprefix("workflow_"))
    assert numbers == sorted(set(numbers))
    return types


def begun() -> Journal:
    journal = Journal().begin()
    assert told(journal) == ["queued", "started", "running"]
    return journal


def after(journal: Journal) -> list[str]:
    return told(journal)[3:]


def start(journal: Journal, name: str) -> None:
    journal.add(Kind.STEP_STARTED, name, {"config": CONFIG}, attempt=1)


def sleep(journal: Journal, name: str, seconds: float = 60) -> None:
    journal.add(Kind.SLEEP_STARTED, name, {"due": journal.due(seconds)})


def wait(journal: Journal, name: str) -> None:
    journal.add(Kind.WAIT_STARTED, name, {"due": journal.due(60), "type": "go"})


def test_a_sleep_is_waited_for():
    journal = begun()
    sleep(journal, "s")
    journal.add(Kind.SLEEP_COMPLETED, "s")
    journal.add(Kind.COMPLETED)
    assert after(journal) == ["sleep_started", "waiting", "running", "sleep_completed", "completed"]


def test_a_sleep_that_is_over_at_once_is_not():
    journal = begun()
    sleep(journal, "s", 0.2)
    journal.add(Kind.SLEEP_COMPLETED, "s")
    assert after(journal) == ["sleep_started", "sleep_completed"]


@pytest.mark.parametrize(
    ("kind", "said"), [(Kind.WAIT_COMPLETED, "wait_completed"), (Kind.WAIT_TIMED_OUT, "wait_timed_out")]
)
def test_an_event_is_waited_for(kind: Kind, said: str):
    journal = begun()
    wait(journal, "w")
    journal.add(kind, "w", {"name": "E", "message": "m"})
    assert after(journal) == ["wait_started", "waiting", "running", said]


def test_a_retry_is_waited_for():
    journal = begun()
    start(journal, "a")
    journal.add(Kind.ATTEMPT_FAILED, "a", LATER, attempt=1)
    journal.add(Kind.ATTEMPT_STARTED, "a", attempt=2)
    journal.add(Kind.ATTEMPT_FAILED, "a", {**LATER, "delay": 200}, attempt=2)
    journal.add(Kind.ATTEMPT_STARTED, "a", attempt=3)
    assert after(journal)[2:] == [
        *("attempt_errored", "waiting", "running", "attempt_started"),
        *("attempt_errored", "attempt_started"),
    ]


def test_completion_from_outside_is_waited_for():
    journal = begun()
    start(journal, "a")
    journal.add(Kind.STEP_WAITING, "a", {"type": "step:a"}, attempt=1)
    journal.add(Kind.STEP_COMPLETED, "a", "1", attempt=1)
    assert after(journal)[2:] == ["waiting", "running", "attempt_completed", "step_completed"]


def test_beside_an_attempt_nothing_waits():
    journal = begun()
    start(journal, "a")
    wait(journal, "w")
    sleep(journal, "s")
    journal.add(Kind.STEP_COMPLETED, "a", "1", attempt=1)
    journal.add(Kind.SLEEP_COMPLETED, "s")
    start(journal, "b")
    journal.add(Kind.STEP_FAILED, "b", {"name": "E", "message": "m"}, attempt=1)
    journal.add(Kind.WAIT_COMPLETED, "w", "{}")
    assert after(journal)[2:] == [
        *("wait_started", "sleep_started", "attempt_completed", "step_completed", "waiting"),
        *("sleep_completed", "running", "step_started", "attempt_started"),
        *("attempt_errored", "step_errored", "waiting", "running", "wait_completed"),
    ]


def test_a_pause_ends_the_waiting_until_it_is_over():
    journal = begun()
    wait(journal, "w")
    journal.add(Kind.PAUSED)
    journal.add(Kind.RESUMED)
    journal.add(Kind.WAIT_COMPLETED, "w", "{}")
    assert after(journal) == ["wait_started", "waiting", "paused", "running", "waiting", "running", "wait_completed"]


def test_while_a_pause_is_coming_nothing_waits():
    journal = begun()
    start(journal, "a")
    wait(journal, "w")
    journal.add(Kind.PAUSE_REQUESTED)
    journal.add(Kind.STEP_COMPLETED, "a", "1", attempt=1)
    journal.add(Kind.PAUSED)
    assert after(journal)[3:] == ["waiting_for_pause", "attempt_completed", "step_completed", "paused"]


def test_what_rolls_back_does_not_wait():
    journal = begun()
    start(journal, "a")
    wait(journal, "w")
    journal.add(Kind.ROLLBACK_STARTED, None, {"name": "E", "message": "m"})
    journal.add(Kind.STEP_FAILED, "a", {"name": "E", "message": "m", "cancelled": True}, attempt=1)
    assert "waiting" not in after(journal)


def test_a_restart_forgets_what_was_awaited():
    journal = begun()
    wait(journal, "w")
    journal.add(Kind.RESTARTED, None, {"from_seq": 2})
    journal.add(Kind.STARTED)
    start(journal, "a")
    journal.add(Kind.STEP_COMPLETED, "a", "1", attempt=1)
    assert after(journal)[2:] == [
        *("queued", "started", "running"),
        *("step_started", "attempt_started", "attempt_completed", "step_completed"),
    ]


def test_a_restart_from_a_step_keeps_what_waited_before():
    journal = begun()
    wait(journal, "w")
    start(journal, "a")
    journal.add(Kind.RESTARTED, None, {"from_seq": 4})
    start(journal, "a")
    journal.add(Kind.STEP_COMPLETED, "a", "1", attempt=1)
    assert after(journal)[-2:] == ["step_completed", "waiting"]
