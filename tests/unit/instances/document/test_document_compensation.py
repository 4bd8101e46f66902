"""Failing and undoing: draining, order, inputs, outcomes, deadlines, terminate with rollback."""

import pytest

from instances.runtimes.protocol import (
    BeginRollback,
    Cancel,
    CancelTimer,
    Do,
    EndRollback,
    Fail,
    Failure,
    StepFailure,
    StepKind,
    Timer,
)
from tests.support.document_runs import call, drive, event, fails, noop, sets, wait

UNDO = {"compensate": {"type": "set", "config": {"values": {"input": "{{ compensation.input }}"}}}}


def undone(run):
    """Names of compensations in the order they started."""
    return run.started(StepKind.ROLLBACK)


def marks(run):
    """The large moves of a run, in order."""
    return [type(c).__name__ for c in run.commands if isinstance(c, (BeginRollback, EndRollback, Fail))]


def result_of_undo(run, name, count=1):
    for batch, _ in run.batches:
        for message in batch:
            key = getattr(message, "key", None)
            if key is not None and (key.kind, key.name, key.count) == (StepKind.ROLLBACK, name, count):
                return message.value
    raise AssertionError(f"{name} was not undone")


async def test_a_failure_rolls_back_even_with_nothing_to_undo():
    run = await drive([noop("a"), fails("b", "a")])
    assert marks(run) == ["BeginRollback", "EndRollback", "Fail"]
    assert run.rollback == EndRollback(True, None)


async def test_never_means_no_rollback():
    run = await drive([noop("a", **UNDO), fails("b", "a")], rollback="never")
    assert marks(run) == ["Fail"]
    assert undone(run) == []


async def test_what_completed_and_what_failed_is_undone_but_not_what_was_skipped_or_never_ran():
    nodes = [
        sets("a", values={"x": 1}, **UNDO),
        noop("skipped", when="`false`", **UNDO),
        fails("b", "a", **UNDO),
        noop("later", "b", **UNDO),
        noop("plain"),
    ]
    run = await drive(nodes)
    assert undone(run) == ["b", "a"]
    assert run.rollback == EndRollback(True, None)
    assert result_of_undo(run, "a") == '{"input":{"x":1}}'
    assert result_of_undo(run, "b") == '{"input":null}', "the culprit has no input of its own"
    await run.check_replay()


async def test_ignored_failures_are_undone_too():
    run = await drive([fails("a", on_error="continue", **UNDO), fails("b", "a")])
    assert undone(run) == ["a"]


async def test_the_deepest_first_and_one_depth_at_a_time():
    nodes = [
        noop("a", **UNDO),
        noop("b1", "a", **UNDO),
        noop("b2", "a", **UNDO),
        noop("c", "b1", "b2", **UNDO),
        noop("shallow", **UNDO),
        fails("end", "c", "shallow"),
    ]
    run = await drive(nodes)
    levels = [
        [c.key.name for c in commands if isinstance(c, Do) and c.key.kind is StepKind.ROLLBACK]
        for _, commands in run.batches
    ]
    assert [level for level in levels if level] == [["c"], ["b1", "b2"], ["a", "shallow"]]
    await run.check_replay()


async def test_running_siblings_finish_and_are_undone_with_their_results():
    nodes = [{"id": "x", "type": "external", **UNDO}, fails("b"), noop("later", "x")]
    run = await drive(nodes)
    assert marks(run) == ["BeginRollback"]
    await run.complete("x", '{"made":1}')
    assert run.started() == ["x", "b"], "nothing new starts"
    assert result_of_undo(run, "x") == '{"input":{"made":1}}'
    assert marks(run) == ["BeginRollback", "EndRollback", "Fail"]
    await run.check_replay()


async def test_siblings_that_only_wait_are_given_up():
    nodes = [wait("w", config={"duration": "1 day"}, **UNDO), event("e", **UNDO), fails("b")]
    run = await drive(nodes)
    assert run.cancelled() == ["w", "e"]
    assert undone(run) == []
    assert marks(run) == ["BeginRollback", "EndRollback", "Fail"]
    await run.check_replay()


async def test_draining_siblings_are_not_retried():
    async def perform(do, _attempt):
        raise StepFailure(Failure("Error", f"{do.key.name} broke"))

    nodes = [call("a", retries={"limit": 0}), call("b", retries={"limit": 5, "delay": 0}, **UNDO)]
    run = await (await drive(nodes, perform=perform)).finish()
    assert run.executed == [("a-1", 1), ("b-1", 1), ("b-1", 1)]
    assert run.error.message == "a broke"
    assert undone(run) == ["b"]


async def test_compensate_input_wins_over_the_output():
    async def perform(do, _attempt):
        if do.key.name == "a":
            raise StepFailure(Failure("Error", "no", compensate_input='{"partial":true}'))
        return "1"

    run = await drive([call("a", **UNDO)], perform=perform)
    assert result_of_undo(run, "a") == '{"input":{"partial":true}}'


async def test_input_template_and_error_in_scope():
    compensate = {
        "type": "set",
        "input": {"ref": "{{ compensation.input.x }}", "why": "{{ error.message }}"},
        "config": {"values": {"got": "{{ compensation.input }}", "later": "{{ steps.b.error.message }}"}},
    }
    run = await drive([sets("a", values={"x": 7}, compensate=compensate), fails("b", "a")])
    assert result_of_undo(run, "a") == '{"got":{"ref":7,"why":"b broke"},"later":"b broke"}'


async def test_compensations_have_their_own_retries_and_timeout():
    attempts = []

    async def perform(do, attempt):
        attempts.append((do.key.kind, do.key.name, attempt.number))
        raise StepFailure(Failure("Error", "no"))

    compensate = {
        "type": "call_api",
        "config": {"url": "https://example.com"},
        "retries": {"limit": 2, "delay": 0},
        "timeout": 3000,
    }
    run = await (await drive([noop("a", compensate=compensate), fails("b", "a")], perform=perform)).finish()
    assert attempts == [(StepKind.ROLLBACK, "a", number) for number in (1, 2, 3)]
    [do] = [c for c in run.commands if isinstance(c, Do) and c.key.kind is StepKind.ROLLBACK]
    assert (do.timeout, do.total_timeout, do.counts) == (3000, None, False)
    assert run.rollback is not None
    assert not run.rollback.complete
    assert run.rollback.failure is not None
    assert run.rollback.failure.message == "no"
    assert run.error.message == "b broke", "the instance ends with what triggered the rollback"


async def test_a_failed_compensation_does_not_stop_the_others():
    bad = {"compensate": {"type": "fail", "config": {"message": "cannot undo"}}}
    run = await drive([noop("a", **UNDO), noop("b", "a", **bad), noop("c", "b", **UNDO), fails("d", "c")])
    assert undone(run) == ["c", "b", "a"]
    assert run.rollback is not None
    assert not run.rollback.complete


async def test_an_expression_error_in_a_compensation_is_its_failure():
    bad = {"compensate": {"type": "set", "config": {"values": {"x": "{{ compensation.input > `1` && 'a' > `1` }}"}}}}
    run = await drive([noop("a", **bad), fails("b", "a")])
    assert run.rollback is not None
    assert run.rollback.failure is not None
    assert run.rollback.failure.name == "EXPRESSION_ERROR"


async def test_async_compensations_wait_for_outside():
    run = await drive([noop("a", compensate={"type": "external", "timeout": "1 hour"}), fails("b", "a")])
    assert marks(run) == ["BeginRollback"]
    await run.complete("a", kind=StepKind.ROLLBACK)
    assert marks(run) == ["BeginRollback", "EndRollback", "Fail"]
    await run.check_replay()


async def test_compensations_do_not_count_towards_the_attempts():
    run = await drive([noop("a", **UNDO), noop("b", "a", **UNDO), noop("c", "b")], limits={"max_steps": 2})
    assert undone(run) == ["b", "a"]
    assert run.rollback == EndRollback(True, None)


async def test_nodes_with_compensation_are_guarded():
    run = await drive([noop("a", **UNDO), noop("b")])
    assert [do.guarded for do in run.commands if isinstance(do, Do)] == [True, False]


async def test_each_child_of_a_loop_is_undone_with_its_own_item():
    async def perform(do, _attempt):
        if do.key.count == 3:
            raise StepFailure(Failure("Error", "third"))
        return f"{do.key.count}"

    compensate = {"type": "set", "config": {"values": {"item": "{{ item }}", "input": "{{ compensation.input }}"}}}
    node = call(
        "e", for_each="{{ trigger }}", config={"url": "https://example.com", "parallel": 1}, compensate=compensate
    )
    run = await drive([node], input=["x", "y", "z", "never"], perform=perform)
    assert [result_of_undo(run, "e", count) for count in (1, 2, 3)] == [
        '{"item":"x","input":1}',
        '{"item":"y","input":2}',
        '{"item":"z","input":null}',
    ]
    assert len(undone(run)) == 3
    await run.check_replay()


async def test_at_most_max_parallel_compensations_at_once():
    nodes = [noop(f"n{i}", compensate={"type": "external"}) for i in range(3)]
    nodes.append(fails("end", *[f"n{i}" for i in range(3)]))
    run = await drive(nodes, limits={"max_parallel": 2})
    assert undone(run) == ["n0", "n1"]
    await run.complete("n0", kind=StepKind.ROLLBACK)
    assert undone(run) == ["n0", "n1", "n2"]


# --- the deadline ------------------------------------------------------------------------------------------------


async def test_the_deadline_gives_everything_up_and_rolls_back():
    nodes = [
        sets("a", values={"x": 1}, **UNDO),
        {"id": "x", "type": "external", **UNDO},
        wait("w", config={"duration": "1 day"}, **UNDO),
    ]
    run = await (await drive(nodes, limits={"timeout": "1 hour"})).finish()
    assert run.error.name == "EXECUTION_TIMEOUT"
    assert sorted(run.cancelled()) == ["w", "x"]
    assert sorted(undone(run)) == ["a", "x"], "what reached outside is undone, what only waited is not"
    assert Timer("timeout", 3_600_000) in run.commands
    await run.check_replay()


async def test_on_error_does_not_save_from_the_deadline():
    run = await (
        await drive([{"id": "x", "type": "external", "on_error": "continue"}], limits={"timeout": 1000})
    ).finish()
    assert run.error.name == "EXECUTION_TIMEOUT"


async def test_the_deadline_cuts_draining_short():
    run = await drive([{"id": "x", "type": "external", **UNDO}, fails("b")], limits={"timeout": 1000})
    await run.finish()
    assert run.error.message == "b broke"
    assert undone(run) == ["x"]


async def test_the_deadline_does_not_fire_while_compensating():
    compensate = {"type": "external"}
    run = await drive([noop("a", compensate=compensate), fails("b", "a")], limits={"timeout": 1000})
    await run.advance(10)
    assert CancelTimer("timeout") in run.commands
    assert marks(run) == ["BeginRollback"]
    await run.complete("a", kind=StepKind.ROLLBACK)
    assert run.rollback == EndRollback(True, None)


# --- asked for ---------------------------------------------------------------------------------------------------


async def test_terminate_with_rollback():
    nodes = [
        noop("a", **UNDO),
        {"id": "x", "type": "external", "depends_on": ["a"], **UNDO},
        event("e", "a"),
        noop("later", "e"),
    ]
    run = await drive(nodes)
    await run.request_rollback()
    assert sorted(run.cancelled()) == ["e", "x"]
    assert undone(run) == ["x", "a"]
    assert marks(run) == ["EndRollback"], "the driver knows how it ends"
    assert result_of_undo(run, "a") == '{"input":"success"}'
    await run.check_replay()


async def test_terminate_with_rollback_before_anything_was_done():
    run = await drive([event("e")])
    await run.request_rollback()
    assert run.rollback == EndRollback(True, None)


async def test_stop_rollback_finishes_what_is_in_flight_only():
    attempts = []

    async def perform(do, attempt):
        attempts.append((do.key.kind, do.key.name, attempt.number))
        if len(attempts) == 1:
            raise StepFailure(Failure("Error", "once more"))
        return "null"

    undo = {"type": "call_api", "config": {"url": "https://example.com"}, "retries": {"limit": 1, "delay": 1000}}
    run = await drive([noop("a", **UNDO), noop("b", "a", compensate=undo), fails("c", "b")], perform=perform)
    assert undone(run) == ["b"]
    await run.stop_rollback()
    assert marks(run) == ["BeginRollback"]
    await run.finish()
    assert attempts == [(StepKind.ROLLBACK, "b", 1), (StepKind.ROLLBACK, "b", 2)]
    assert undone(run) == ["b"]
    assert run.rollback is not None
    assert not run.rollback.complete
    await run.check_replay()


@pytest.mark.parametrize("compensate", [{"type": "external"}, {"type": "workflow", "config": {"workflow": "w"}}])
async def test_stop_rollback_gives_up_compensations_that_others_may_never_complete(compensate):
    run = await drive([noop("a", **UNDO), noop("b", "a", compensate=compensate), fails("c", "b")])
    assert marks(run) == ["BeginRollback"]
    await run.stop_rollback()
    assert run.cancelled() == ["b"]
    assert marks(run) == ["BeginRollback", "EndRollback", "Fail"]
    assert undone(run) == ["b"]
    assert not run.rollback.complete
    await run.check_replay()


async def test_stop_rollback_while_draining():
    run = await drive([{"id": "x", "type": "external", **UNDO}, fails("b")])
    await run.stop_rollback()
    assert run.cancelled() == ["x"]
    assert undone(run) == []
    assert run.rollback is not None
    assert not run.rollback.complete
    await run.check_replay()


async def test_the_timeout_of_a_compensating_child_bounds_it():
    undo = {"type": "workflow", "config": {"workflow": "w"}, "timeout": "2 hours"}
    run = await drive([noop("a", compensate=undo), fails("b", "a")])
    [do] = [c for c in run.commands if isinstance(c, Do) and c.key.kind is StepKind.ROLLBACK]
    assert (do.timeout, do.total_timeout) == (None, 7_200_000)
    await run.finish()
    assert run.rollback.failure.name == "STEP_TIMEOUT"


@pytest.mark.parametrize("mode", ["auto", "never"])
async def test_late_results_of_given_up_steps_are_ignored(mode):
    run = await drive([{"id": "x", "type": "external"}, event("e")], limits={"timeout": 1000}, rollback=mode)
    await run.finish()
    assert run.error.name == "EXECUTION_TIMEOUT"
    assert len([c for c in run.commands if isinstance(c, Cancel)]) == 2
