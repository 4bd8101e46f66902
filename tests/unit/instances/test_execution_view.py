"""The neutral view of an instance that all translated faces share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from instances.lifecycle import Kind, Status
from instances.projections.execution import BlockedBy, Execution, estimated_completion, execution
from instances.projections.execution_steps import Compensation, Forward, WaitsFor
from instances.projections.fold import fold
from instances.projections.instance_view import InstanceFacts
from instances.search.query import Facet
from tests.support.journal import START, Journal
from versions.document import Document, parse_document

KEY = UUID(int=(int(START.timestamp() * 1000) << 80) | 7 << 76 | 2 << 62)


def document(*nodes: dict[str, Any], **fields: Any) -> Document:
    return parse_document({"spec": "workflow/1", "name": "d", "nodes": list(nodes), **fields})


def node(id: str, *after: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "depends_on": list(after), **fields}


def view(journal: Journal, facet: Facet, of: Document | None = None, **facts: Any) -> Execution:
    history = fold(journal.entries)
    ended = history.end.at if history.end else None
    known = InstanceFacts(
        key=KEY,
        instance_id="i",
        workflow_key=KEY,
        handle="w",
        version_key=KEY,
        no=1,
        run=1,
        status=facet.status,
        created_at=START,
        modified_at=journal.now,
        **{"started_at": history.started_at, "ended_at": ended, **facts},
    )
    return execution(known, facet, history, of)


def states(told: Execution) -> dict[str, str]:
    return {step.id: step.state.value for step in told.steps}


def undoing(told: Execution) -> dict[str, tuple[str, bool]]:
    return {step.id: (step.compensation.value, step.no_compensation) for step in told.steps}


UNDO = {"compensate": {"type": "noop"}}
THREE = document(node("a", **UNDO), node("b", "a"), node("c", "b"))
FAILURE = {"name": "E", "message": "m", "code": "C"}


def test_nodes_are_listed_in_document_order_from_the_beginning():
    told = view(Journal(), Facet.HELD_BACK, THREE)
    assert [(step.id, step.position, step.state) for step in told.steps] == [
        ("a", 0, Forward.PENDING),
        ("b", 1, Forward.PENDING),
        ("c", 2, Forward.PENDING),
    ]
    assert told.started_at is None and told.created_at == START
    assert view(Journal(), Facet.ADMITTED, THREE).started_at == START


def test_what_became_of_one_instance_is_not_seen_in_another():
    journal = Journal().begin()
    journal.step("a", 1)
    assert view(journal, Facet.RUNNING, THREE).steps[0].invoke.attempts == 1
    untouched = view(Journal(), Facet.ADMITTED, THREE).steps[0]
    assert (untouched.state, untouched.invoke.attempts, untouched.key) == (Forward.PENDING, 0, None)


def test_the_tree_follows_the_deepest_dependency_and_the_last_of_those():
    fork = document(node("a"), node("b", "a"), node("c", "a"), node("d", "b"), node("e", "c", "b"), node("f", "d", "c"))
    told = {step.id: step for step in view(Journal(), Facet.ADMITTED, fork).steps}
    assert told["e"].path == ("a", "c", "e")
    assert told["f"].path == ("a", "b", "d", "f")
    assert told["f"].depth == 4
    assert [told["a"].children, told["b"].children, told["c"].children] == [(1, 2), (3,), (4,)]


def test_a_failure_is_undone():
    journal = Journal().begin()
    journal.step("a", 1)
    journal.step("b", 2)
    journal.add(Kind.STEP_STARTED, "c", {"type": "noop"}, attempt=1)
    journal.add(Kind.STEP_FAILED, "c", FAILURE, attempt=1)
    journal.add(Kind.ROLLBACK_STARTED, None, FAILURE)
    told = view(journal, Facet.DRAINING, THREE)
    assert states(told) == {"a": "complete", "b": "complete", "c": "failed"}
    assert undoing(told) == {"a": ("pending", False), "b": ("pending", True), "c": ("pending", True)}
    journal.add(Kind.ROLLBACK_STEP_STARTED, "a", {"type": "noop"}, attempt=1)
    told = view(journal, Facet.COMPENSATING, THREE)
    assert undoing(told) == {"a": ("running", False), "b": ("complete", True), "c": ("complete", True)}
    assert told.ever_compensated
    journal.add(Kind.ROLLBACK_STEP_COMPLETED, "a", None, attempt=1)
    journal.add(Kind.ROLLBACK_ENDED, None, {"outcome": "complete"})
    journal.add(Kind.ERRORED, None, FAILURE)
    told = view(journal, Facet.ERRORED_REVERTED, THREE, error='{"name":"E","message":"m"}')
    assert undoing(told)["a"] == ("complete", False)
    assert told.culprit is not None and told.culprit.id == "c"
    assert [(one.step.id if one.step else None, one.compensating, one.code) for one in told.failures] == [
        ("c", False, "C")
    ]
    assert told.context_version == 3
    assert told.progress.percentage == 100


def test_a_compensation_that_fails_shows_beside_the_step_s_own_failure():
    journal = Journal().begin()
    journal.step("a", 1)
    journal.add(Kind.ROLLBACK_STARTED, None, FAILURE)
    journal.add(Kind.ROLLBACK_STEP_STARTED, "a", {"type": "noop"}, attempt=1)
    journal.add(Kind.ROLLBACK_ATTEMPT_FAILED, "a", FAILURE | {"delay": 1000}, attempt=1)
    step = view(journal, Facet.COMPENSATING, THREE).steps[0]
    assert (step.compensation, step.compensate.failures) == (Compensation.RETRYING, 1)
    assert step.compensate.next_attempt_at == journal.now + timedelta(seconds=1)
    journal.add(Kind.ROLLBACK_ATTEMPT_STARTED, "a", attempt=2)
    journal.add(Kind.ROLLBACK_STEP_FAILED, "a", FAILURE, attempt=2)
    told = view(journal, Facet.COMPENSATING, THREE)
    assert (told.steps[0].compensation, told.steps[0].compensate.attempts) == (Compensation.FAILED, 2)
    assert told.steps[0].invoke.attempts == 1
    assert [(one.compensating, one.error.message) for one in told.failures] == [(True, "m")]


@pytest.mark.parametrize(
    ("facet", "kind", "running", "never"),
    [
        (Facet.TERMINATED, Kind.TERMINATED, Forward.CANCELLED, Forward.CANCELLED),
        (Facet.ERRORED, Kind.ERRORED, Forward.CANCELLED, Forward.SKIPPED_FAILURE),
    ],
)
def test_what_an_end_cuts_off(facet: Facet, kind: Kind, running: Forward, never: Forward):
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"type": "noop"}, attempt=1)
    journal.add(kind, None, FAILURE if kind is Kind.ERRORED else None)
    told = view(journal, facet, THREE)
    assert [step.state for step in told.steps] == [running, never, never]
    assert told.steps[0].invoke.ended_at == journal.now
    assert told.steps[1].invoke.started_at is None
    assert told.finished == [told.steps[0]] and not told.unfinished
    assert told.progress.completed == told.progress.skipped == 3


def test_what_was_skipped_tells_why():
    journal = Journal().begin()
    journal.add(Kind.STEP_SKIPPED, "a", {"reason": "condition"})
    journal.add(Kind.STEP_SKIPPED, "b", {"reason": "failure"})
    told = view(journal, Facet.RUNNING, THREE)
    assert [step.state for step in told.steps] == [Forward.SKIPPED, Forward.SKIPPED_FAILURE, Forward.PENDING]
    assert [step.invoke.attempts for step in told.steps] == [0, 0, 0]
    assert told.progress.percentage == 67 and told.context_version == 1


def test_attempts_and_retries():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"type": "noop"}, attempt=1)
    first = journal.now
    journal.add(Kind.ATTEMPT_FAILED, "a", FAILURE | {"delay": 60_000}, attempt=1)
    told = view(journal, Facet.WAITING, THREE)
    step = told.steps[0]
    assert (step.state, step.invoke.attempts, step.invoke.failures) == (Forward.RETRYING, 1, 1)
    assert step.invoke.error is not None and step.invoke.next_attempt_at == journal.now + timedelta(minutes=1)
    assert (step.waits_for, told.waits_for) == (WaitsFor.TIMER, WaitsFor.TIMER)
    assert [(one.kind, one.position) for one in told.blockers] == [(BlockedBy.BACKOFF, 0)]
    journal.add(Kind.ATTEMPT_STARTED, "a", attempt=2)
    journal.add(Kind.COMPENSATE_INPUT, "a", {"x": 1})
    journal.add(Kind.STEP_COMPLETED, "a", [1], attempt=2)
    step = view(journal, Facet.RUNNING, THREE).steps[0]
    assert (step.state, step.invoke.attempts, step.invoke.error) == (Forward.COMPLETE, 2, None)
    assert (step.invoke.started_at, step.invoke.ended_at) == (first, journal.now)
    assert (step.invoke.output, step.compensate_input) == ("[1]", '{"x":1}')
    assert step.duration_ms == 4000


def test_waits_and_their_outputs():
    waits = document(
        node("e", type="wait_for_event", config={"event": "go"}), node("s", type="wait"), node("x", type="external")
    )
    journal = Journal().begin()
    journal.add(Kind.WAIT_STARTED, "e", {"type": "go", "due": journal.due(60)})
    due = journal.now + timedelta(seconds=60)
    journal.add(Kind.SLEEP_STARTED, "s", {"due": journal.due(5)})
    journal.add(Kind.STEP_STARTED, "x", {"type": "external"}, attempt=1)
    journal.add(Kind.STEP_WAITING, "x", {"type": "step:x"})
    told = view(journal, Facet.WAITING, waits)
    assert [(step.waits_for, step.event_type) for step in told.steps] == [
        (WaitsFor.EVENT, "go"),
        (WaitsFor.TIMER, None),
        (WaitsFor.EXTERNAL, "step:x"),
    ]
    assert told.steps[0].due_at == due and told.steps[2].due_at is None
    assert told.waits_for is WaitsFor.EVENT
    assert [one.kind for one in told.blockers] == [BlockedBy.EVENT, BlockedBy.EXTERNAL]
    journal.add(Kind.WAIT_COMPLETED, "e", {"payload": {"n": 1}, "timestamp": "t", "type": "go"})
    journal.add(Kind.SLEEP_COMPLETED, "s")
    told = view(journal, Facet.WAITING, waits)
    assert [step.invoke.output for step in told.steps[:2]] == ['{"n":1}', '{"waited":true,"durationMs":5000}']
    assert [(one.kind, one.resolved_at is None) for one in told.blockers] == [
        (BlockedBy.EXTERNAL, True),
        (BlockedBy.EVENT, False),
    ]


def test_loops_are_one_step_with_the_outputs_in_order():
    loop = document(node("l", for_each=[1, 2, 3]))
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "l", {"type": "noop"}, count=1, attempt=1)
    journal.step("l", 3, count=3)
    assert states(view(journal, Facet.RUNNING, loop)) == {"l": "running"}
    journal.step("l", 2, count=2)
    journal.add(Kind.STEP_COMPLETED, "l", 1, count=1, attempt=1)
    step = view(journal, Facet.RUNNING, loop).steps[0]
    assert (step.state, step.invoke.output, step.invoke.attempts) == (Forward.COMPLETE, "[1,2,3]", 3)


@pytest.mark.parametrize(("kind", "end"), [("step", Kind.STEP_COMPLETED), ("sleep", Kind.SLEEP_COMPLETED)])
def test_a_loop_that_has_begun_less_than_its_items_goes_on(kind: str, end: Kind):
    loop = document(node("l", type="wait" if kind == "sleep" else "noop", for_each=[1, 2]))
    journal = Journal().begin()
    for count in (1, 2):
        if kind == "step":
            journal.add(Kind.STEP_STARTED, "l", {"type": "noop", "items": 2}, count=count, attempt=1)
            journal.add(end, "l", count, count=count, attempt=1)
        else:
            journal.add(Kind.SLEEP_STARTED, "l", {"due": 0, "items": 2}, count=count)
            journal.add(end, "l", count=count)
        step = view(journal, Facet.RUNNING, loop).steps[0]
        over = count == 2
        assert step.state is (Forward.COMPLETE if over else Forward.RUNNING)
        assert (step.invoke.end_seq is not None, step.invoke.output is not None) == (over, over)
        assert step.invoke.attempts == count


@pytest.mark.parametrize(("on_error", "state"), [("stop", Forward.FAILED), ("continue", Forward.RUNNING)])
def test_a_loop_of_which_an_item_failed_goes_on_only_if_it_may(on_error: str, state: Forward):
    loop = document(node("l", for_each=[1, 2], on_error=on_error))
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "l", {"type": "noop", "items": 2}, count=1, attempt=1)
    journal.add(Kind.STEP_FAILED, "l", {"name": "Error", "message": "no"}, count=1, attempt=1)
    assert view(journal, Facet.RUNNING, loop).steps[0].state is state


def test_outputs_that_are_not_saved_or_sensitive_stay_hidden():
    hidden = document(node("a", save_output=False))
    journal = Journal().begin()
    journal.step("a", 1)
    assert view(journal, Facet.RUNNING, hidden).steps[0].invoke.output is None
    journal = Journal().begin()
    journal.step("a", 1, sensitive=True)
    assert view(journal, Facet.RUNNING).steps[0].invoke.output == '"[REDACTED]"'


def test_script_steps_in_order_of_their_start():
    journal = Journal().begin()
    journal.step("b.1")
    journal.step("a")
    journal.step("b.1", count=2)
    journal.add(Kind.SLEEP_STARTED, "a", {"due": 0})
    told = view(journal, Facet.WAITING)
    assert [(step.id, step.name, step.path, step.type) for step in told.steps] == [
        ("b.1-1", "b.1", ("b_1",), "step"),
        ("a-1", "a", ("a",), "step"),
        ("b.1-2", "b.1", ("b_1-2",), "step"),
        ("a-2", "a", ("a-2",), "sleep"),
    ]
    assert told.progress.estimated
    assert [one.name for one in told.milestones] == ["Initialization", "Completion"]


def test_a_step_is_found_by_id_name_and_path():
    told = view(Journal(), Facet.ADMITTED, THREE)
    for name in ("b", "a.b", "_root.a.b"):
        found = told.step(name)
        assert found is not None and found.id == "b"
    assert told.step("d") is None and told.step("_root") is None


def test_milestones_and_sync_points():
    synced = document(node("a"), node("b"), sync_points=[{"id": "s", "name": "S", "required": ["a", "b"]}])
    journal = Journal().begin()
    journal.add(Kind.MILESTONE, "initialization")
    journal.add(Kind.SYNC_POINT, "s", {"state": "reached"})
    reached = journal.now
    told = view(journal, Facet.RUNNING, synced)
    assert [(one.state, one.reached_at, one.ended_at) for one in told.sync_points] == [("reached", reached, None)]
    journal.add(Kind.SYNC_POINT, "s", {"state": "completed"})
    told = view(journal, Facet.RUNNING, synced)
    assert [(one.state, one.reached_at, one.ended_at) for one in told.sync_points] == [
        ("completed", reached, journal.now)
    ]
    assert [(one.position, one.achieved_at is not None) for one in told.milestones] == [
        (1, True),
        (2, False),
        (3, False),
    ]


def test_pauses_and_limits_block():
    journal = Journal().begin()
    journal.step("a")
    journal.add(Kind.PAUSED)
    assert [(one.kind, one.position, one.resolved_at) for one in view(journal, Facet.PAUSED, THREE).blockers] == [
        (BlockedBy.PAUSE, 1, None)
    ]
    journal.add(Kind.RESUMED)
    [resolved] = view(journal, Facet.RUNNING, THREE).blockers
    assert resolved.resolved_at == journal.now
    [held] = view(Journal(), Facet.HELD_BACK, THREE).blockers
    assert (held.kind, held.position, held.created_at) == (BlockedBy.LIMIT, 0, START)


def test_terminates_and_deadlines_are_failures_of_the_instance():
    journal = Journal().begin()
    journal.add(Kind.TERMINATED)
    [failure] = view(journal, Facet.TERMINATED, THREE).failures
    assert (failure.step, failure.error.name) == (None, "WorkflowTerminated")
    journal = Journal().begin()
    journal.add(Kind.ERRORED, None, {"name": "ExecutionTimeout", "message": "late"})
    error = '{"name":"ExecutionTimeout","message":"late"}'
    [failure] = view(journal, Facet.ERRORED, THREE, error=error).failures
    assert (failure.step, failure.error.message) == (None, "late")


def test_durations():
    journal = Journal().begin()
    now = journal.now + timedelta(seconds=9)
    assert view(journal, Facet.RUNNING).duration_ms() is None
    assert view(journal, Facet.RUNNING).duration_ms(now) == 9000
    assert view(journal, Facet.HELD_BACK, started_at=None).duration_ms(now) is None
    before = journal.now - timedelta(seconds=1)
    assert view(journal, Facet.COMPLETE, ended_at=before).duration_ms(now) == 0


MEANS = {"a": 10_000.0, "b": 5_000.0, "c": 1_000.0}


def test_the_estimate_is_the_longest_way_left():
    fork = document(node("a"), node("b", "a"), node("c", "a"))
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"type": "noop"}, attempt=1)
    now = journal.now + timedelta(seconds=4)
    assert estimated_completion(view(journal, Facet.RUNNING, fork), MEANS, now) == now + timedelta(seconds=6 + 5)
    late = journal.now + timedelta(seconds=40)
    assert estimated_completion(view(journal, Facet.RUNNING, fork), MEANS, late) == late + timedelta(seconds=5)
    assert estimated_completion(view(journal, Facet.RUNNING, fork), {"b": 7_000.0}, now) == now + timedelta(
        seconds=3 + 7
    )
    for nothing in (
        estimated_completion(view(journal, Facet.RUNNING, fork), {}, now),
        estimated_completion(view(journal, Facet.PAUSED, fork), MEANS, now),
        estimated_completion(view(journal, Facet.RUNNING), MEANS, now),
        estimated_completion(view(journal, Facet.TERMINATED, fork), MEANS, now),
    ):
        assert nothing is None


def test_nobody_can_say_when_an_answer_comes():
    asked = document({"id": "a", "async": True}, node("b", "a"))
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"type": "noop"}, attempt=1)
    journal.add(Kind.STEP_WAITING, "a", {})
    assert estimated_completion(view(journal, Facet.WAITING, asked), MEANS, journal.now) is None
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"type": "noop"}, attempt=1)
    journal.add(Kind.STEP_WAITING, "a", {"until": journal.due(20)})
    at = journal.now
    assert estimated_completion(view(journal, Facet.WAITING, asked), MEANS, at) == at + timedelta(seconds=20 + 5)


def test_status_of_a_facet():
    assert {facet.status for facet in Facet} == set(Status)
