"""The fold over the journal: steps, attempts, timers, pauses, restarts, rollbacks."""

from __future__ import annotations

from datetime import timedelta

import pytest

from instances.lifecycle import Kind
from instances.projections.entries import ErrorInfo
from instances.projections.fold import fold
from instances.projections.restarts import find_step_start
from instances.projections.steps import Outcome, State, StepRun
from instances.runtimes.protocol import StepKey, StepKind
from tests.support.journal import CONFIG, START, Journal


def only(journal: Journal) -> StepRun:
    (step,) = fold(journal.entries).steps.values()
    return step


def test_nothing_happened_yet():
    history = fold([])
    assert (history.steps, history.end, history.queued_at, history.last_seq) == ({}, None, None, 0)


def test_step_with_retries():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "fetch", {"config": CONFIG}, attempt=1)
    journal.add(Kind.ATTEMPT_FAILED, "fetch", {"name": "Error", "message": "busy", "delay": 10000}, attempt=1)
    step = only(journal)
    assert (step.state, step.retry_delay_ms, step.counted) == (State.RETRYING, 10000, "fetch-1")
    journal.add(Kind.ATTEMPT_STARTED, "fetch", attempt=2)
    assert only(journal).state is State.RUNNING
    journal.add(Kind.STEP_COMPLETED, "fetch", {"id": 1}, attempt=2)
    step = only(journal)
    assert (step.state, step.output, step.end_seq) == (State.COMPLETE, '{"id":1}', 6)
    assert [(a.number, a.outcome, a.error) for a in step.attempts] == [
        (1, Outcome.FAILED, ErrorInfo("Error", "busy")),
        (2, Outcome.COMPLETED, None),
    ]
    assert step.attempts[0].ended_at == START + timedelta(seconds=2.12)


@pytest.mark.parametrize(("timed_out", "state"), [(False, State.FAILED), (True, State.TIMED_OUT)])
def test_step_that_fails_for_good(timed_out: bool, state: State):
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "pay", {"config": CONFIG}, attempt=1)
    journal.add(Kind.STEP_FAILED, "pay", {"name": "E", "message": "no", "code": "X", "timed_out": timed_out})
    step = only(journal)
    assert (step.state, step.error, step.error_code) == (state, ErrorInfo("E", "no"), "X")
    assert step.attempts[0].error == ErrorInfo("E", "no")


def test_failure_between_attempts_belongs_to_the_step_alone():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    journal.add(Kind.ATTEMPT_FAILED, "a", {"name": "Error", "message": "busy"})
    journal.add(Kind.STEP_FAILED, "a", {"name": "NonRetryableDelayError", "message": "threw"})
    step = only(journal)
    assert step.error == ErrorInfo("NonRetryableDelayError", "threw")
    assert [a.error for a in step.attempts] == [ErrorInfo("Error", "busy")]


def test_interrupted_attempt_does_not_count():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    journal.add(Kind.ATTEMPT_INTERRUPTED, "a")
    journal.add(Kind.ATTEMPT_STARTED, "a", attempt=1)
    step = only(journal)
    assert step.state is State.RUNNING
    assert [a.outcome for a in step.attempts] == [Outcome.INTERRUPTED, None]
    assert len(step.counted_attempts) == 1


def test_skipped_step():
    journal = Journal().begin()
    journal.add(Kind.STEP_SKIPPED, "mail", {"reason": "condition"})
    step = only(journal)
    assert (step.state, step.reason, step.attempts) == (State.SKIPPED, "condition", [])


def test_completion_from_outside():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "approve", {"config": CONFIG, "type": "external"}, attempt=1)
    until = journal.due(60)
    journal.add(Kind.STEP_WAITING, "approve", {"until": until})
    history = fold(journal.entries)
    (step,) = history.steps.values()
    assert (step.state, step.event_type) == (State.WAITING, "step:approve")
    assert history.planned_end(step) == journal.now + timedelta(seconds=60)
    journal.add(Kind.STEP_COMPLETED, "approve", {"ok": True})
    assert only(journal).state is State.COMPLETE


@pytest.mark.parametrize(
    ("start", "end", "family"),
    [
        (Kind.SLEEP_STARTED, Kind.SLEEP_COMPLETED, StepKind.SLEEP),
        (Kind.WAIT_STARTED, Kind.WAIT_COMPLETED, StepKind.WAIT),
    ],
)
def test_timers(start: Kind, end: Kind, family: StepKind):
    journal = Journal().begin()
    journal.add(start, "rest", {"due": journal.due(30), "type": "go"})
    history = fold(journal.entries)
    step = history.steps[StepKey(family, "rest", 1)]
    assert step.state is State.WAITING
    assert history.planned_end(step) == journal.now + timedelta(seconds=30)
    journal.add(end, "rest", {"payload": 1} if family is StepKind.WAIT else None, after=30)
    step = only(journal)
    assert (step.state, step.ended_at) == (State.COMPLETE, journal.now)


def test_wait_that_times_out():
    journal = Journal().begin()
    journal.add(Kind.WAIT_STARTED, "ok", {"due": journal.due(5), "type": "go"})
    error = {"name": "WorkflowTimeoutError", "message": "Execution timed out after 5ms"}
    journal.add(Kind.WAIT_TIMED_OUT, "ok", error | {"timed_out": True})
    step = only(journal)
    assert (step.state, step.error and step.error.name) == (State.TIMED_OUT, "WorkflowTimeoutError")


@pytest.mark.parametrize(
    ("start", "end"), [(Kind.SLEEP_STARTED, Kind.SLEEP_COMPLETED), (Kind.WAIT_STARTED, Kind.WAIT_TIMED_OUT)]
)
def test_abandoned_timers(start: Kind, end: Kind):
    journal = Journal().begin()
    journal.add(start, "rest", {"due": journal.due(5)})
    journal.add(end, "rest", {"name": "Cancelled", "message": "gone", "cancelled": True})
    step = only(journal)
    assert (step.state, step.error) == (State.CANCELLED, ErrorInfo("Cancelled", "gone"))


def test_wait_failed_from_outside():
    journal = Journal().begin()
    journal.add(Kind.WAIT_STARTED, "ok", {"due": journal.due(5), "type": "go"})
    journal.add(Kind.WAIT_TIMED_OUT, "ok", {"name": "Error", "message": "refused"})
    assert only(journal).state is State.FAILED


class TestPauses:
    def paused_twice(self, *, absolute: bool) -> Journal:
        journal = Journal().begin()
        journal.add(Kind.PAUSED)
        journal.add(Kind.RESUMED, after=1000)  # before the timer: moves nothing
        journal.add(Kind.SLEEP_STARTED, "rest", {"due": journal.due(60), "absolute": absolute})
        for _ in range(2):
            journal.add(Kind.PAUSE_REQUESTED)
            journal.add(Kind.PAUSED)
            journal.add(Kind.RESUMED, after=10)
        return journal

    @pytest.mark.parametrize(("absolute", "seconds"), [(False, 80), (True, 60)])
    def test_pauses_move_timers_that_run(self, absolute: bool, seconds: int):
        journal = self.paused_twice(absolute=absolute)
        history = fold(journal.entries)
        (step,) = history.steps.values()
        assert history.planned_end(step) == step.started_at + timedelta(seconds=seconds)
        assert not history.paused

    def test_a_pause_that_lasts_moves_nothing_yet(self):
        journal = self.paused_twice(absolute=False)
        journal.add(Kind.PAUSED)
        history = fold(journal.entries)
        assert history.paused
        assert history.planned_end(next(iter(history.steps.values()))) is not None

    def test_a_cancelled_pause_is_none(self):
        journal = Journal().begin()
        journal.add(Kind.PAUSE_REQUESTED)
        journal.add(Kind.RESUMED)
        assert fold(journal.entries).pauses == []


class TestRestarts:
    def test_full_restart_forgets_everything_but_queued(self):
        journal = Journal().begin()
        journal.step("a")
        journal.add(Kind.LOG, "a", {"level": "info", "message": "hi"})
        journal.add(Kind.MILESTONE, "half")
        journal.add(Kind.EVENT_RECEIVED, "go", "a-dedupe-key")
        journal.add(Kind.COMPLETED, payload=1)
        journal.add(Kind.RESTARTED, payload={"from_seq": 2})
        history = fold(journal.entries)
        assert (history.steps, history.lines, history.milestones, history.events) == ({}, [], [], [])
        assert (history.end, history.started_at, history.queued_at) == (None, None, journal.now)
        journal.add(Kind.STARTED)
        journal.step("a")
        history = fold(journal.entries)
        assert (history.started_at is not None, len(history.steps), history.restarts) == (True, 1, 1)

    def test_restart_from_a_step_keeps_what_started_before_even_if_it_ended_later(self):
        journal = Journal().begin()
        journal.add(Kind.STEP_STARTED, "early", {"config": CONFIG}, attempt=1)
        late = journal.add(Kind.STEP_STARTED, "late", {"config": CONFIG}, attempt=1)
        journal.add(Kind.LOG, "early-1", {"level": "info", "message": "of early"})
        journal.add(Kind.LOG, "late-1", {"level": "info", "message": "of late"})
        journal.add(Kind.LOG, None, {"level": "info", "message": "of nobody"})
        journal.add(Kind.STEP_COMPLETED, "early", 1)
        journal.add(Kind.STEP_FAILED, "late", {"name": "Error", "message": "x"})
        journal.add(Kind.ERRORED, payload={"name": "Error", "message": "x"})
        journal.add(Kind.RESTARTED, payload={"from_seq": late})
        history = fold(journal.entries)
        assert [(s.name, s.state) for s in history.steps.values()] == [("early", State.COMPLETE)]
        assert [line.message for line in history.lines] == ["of early"]
        assert history.end is None
        assert history.started_at == START + timedelta(seconds=0.12)
        assert history.queued_at == START

    def test_restart_cuts_off_attempts_of_steps_that_stay(self):
        journal = Journal().begin()
        journal.add(Kind.STEP_STARTED, "early", {"config": CONFIG}, attempt=1)
        late = journal.step("late")
        journal.add(Kind.RESTARTED, payload={"from_seq": late})
        step = only(journal)
        assert [a.outcome for a in step.attempts] == [Outcome.INTERRUPTED]
        assert step.state is State.RUNNING

    def test_restart_keeps_a_step_waiting_for_outside(self):
        journal = Journal().begin()
        journal.add(Kind.STEP_STARTED, "ask", {"config": CONFIG}, attempt=1)
        journal.add(Kind.STEP_WAITING, "ask")
        late = journal.step("late")
        journal.add(Kind.RESTARTED, payload={"from_seq": late})
        assert only(journal).state is State.WAITING

    def test_pauses_that_are_over_have_moved_timers_that_stay(self):
        journal = Journal().begin()
        journal.add(Kind.SLEEP_STARTED, "rest", {"due": journal.due(60)})
        late = journal.step("late")
        journal.add(Kind.PAUSED)
        journal.add(Kind.RESUMED, after=10)
        journal.add(Kind.PAUSED)
        journal.add(Kind.RESTARTED, payload={"from_seq": late}, after=99)
        history = fold(journal.entries)
        (step,) = history.steps.values()
        assert history.planned_end(step) == step.started_at + timedelta(seconds=70)
        assert not history.paused

    def test_restart_drops_a_rollback(self):
        journal = Journal().begin()
        first = journal.step("a")
        journal.add(Kind.ROLLBACK_STARTED, payload={"name": "Error", "message": "x"})
        journal.add(Kind.ROLLBACK_STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
        journal.add(Kind.ROLLBACK_STEP_COMPLETED, "a")
        journal.add(Kind.ROLLBACK_ENDED, payload={"outcome": "complete", "error": None})
        journal.add(Kind.RESTARTED, payload={"from_seq": first + 2})
        history = fold(journal.entries)
        assert [s.family for s in history.steps.values()] == [StepKind.DO]
        assert history.rollback is None

    def test_entries_before_the_first_row_read_may_be_missing(self):
        """A full restart lets readers begin at its entry."""
        journal = Journal().begin()
        journal.step("a")
        restarted = journal.add(Kind.RESTARTED, payload={"from_seq": 2})
        journal.add(Kind.STARTED)
        journal.step("b")
        whole, part = fold(journal.entries), fold(journal.entries[restarted - 1 :])
        assert (part.steps, part.queued_at, part.started_at) == (whole.steps, whole.queued_at, whole.started_at)


class TestRollback:
    def test_rollback_steps_are_steps_of_their_own(self):
        journal = Journal().begin()
        journal.step("a", 1)
        journal.add(Kind.ROLLBACK_STARTED, payload={"name": "Error", "message": "boom", "requested": False})
        journal.add(Kind.ROLLBACK_STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
        journal.add(Kind.ROLLBACK_ATTEMPT_FAILED, "a", {"name": "Error", "message": "later", "delay": 5})
        journal.add(Kind.ROLLBACK_ATTEMPT_STARTED, "a", attempt=2)
        journal.add(Kind.ROLLBACK_STEP_FAILED, "a", {"name": "Error", "message": "never"}, attempt=2)
        journal.add(Kind.ROLLBACK_ENDED, payload={"outcome": "failed", "error": {"name": "Error", "message": "never"}})
        history = fold(journal.entries)
        step = history.steps[StepKey(StepKind.ROLLBACK, "a", 1)]
        assert (step.state, len(step.attempts)) == (State.FAILED, 2)
        assert history.rollback is not None
        assert history.rollback.cause == ErrorInfo("Error", "boom")
        assert (history.rollback.outcome, history.rollback.error) == ("failed", ErrorInfo("Error", "never"))
        assert history.steps[StepKey(StepKind.DO, "a", 1)].state is State.COMPLETE


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(Kind.COMPLETED, "1"), (Kind.ERRORED, '{"name":"E","message":"m"}'), (Kind.TERMINATED, None)],
)
def test_ends(kind: Kind, payload: str | None):
    journal = Journal().begin()
    journal.add(kind, payload=payload)
    end = fold(journal.entries).end
    assert end is not None
    assert (end.kind, end.payload) == (kind, payload)


def test_unknown_kinds_are_passed_over():
    journal = Journal().begin()
    journal.add(999)  # type: ignore[arg-type]
    assert fold(journal.entries).last_seq == 3


class TestRestartPoint:
    def journal(self) -> Journal:
        """The `b` of each type, in this order: sleep, do, do-2, waitForEvent."""
        journal = Journal().begin()
        journal.add(Kind.SLEEP_STARTED, "b", {"due": journal.due(1)})
        journal.add(Kind.SLEEP_COMPLETED, "b")
        journal.step("b")
        journal.step("b", count=2)
        journal.add(Kind.WAIT_STARTED, "b", {"due": journal.due(1), "type": "go"})
        journal.add(Kind.STEP_STARTED, "ask", {"type": "external"}, attempt=1)
        journal.add(Kind.STEP_SKIPPED, "skipped", {"reason": "condition"})
        return journal

    @pytest.mark.parametrize(
        ("name", "count", "kind", "seq"),
        [
            ("b", 1, "do", 5),
            ("b", 2, "do", 7),
            ("b", 3, "do", None),
            ("b", 1, "sleep", 3),
            ("b", 2, "sleep", None),
            ("b", 1, "waitForEvent", 9),
            ("ask", 1, "waitForEvent", 10),
            ("ask", 1, "do", None),
            ("skipped", 1, "do", None),
            ("b-1", 1, "do", None),
        ],
    )
    def test_names_are_uncounted_and_the_type_decides(self, name: str, count: int, kind: str, seq: int | None):
        assert find_step_start(self.journal().entries, name, count, kind) == seq

    def test_a_step_of_an_earlier_run_is_not_found(self):
        journal = self.journal()
        journal.add(Kind.RESTARTED, payload={"from_seq": 2})
        assert find_step_start(journal.entries, "b") is None
