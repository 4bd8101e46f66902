"""Names expressions can use, and what stands behind them."""

import pytest

from instances.runtimes.document import scope as scope_module
from instances.runtimes.protocol import Started
from tests.support.document_runs import WORKSPACE, Driver, compiled, drive, fails, noop, run_context, sets, wait


async def seen(expression, nodes=(), **options):
    """The value `expression` has in a node after `nodes`."""
    last = sets("last", *(node["id"] for node in nodes), values={"value": f"{{{{ {expression} }}}}"}, join="all_done")
    run = await (await drive([*nodes, last], **options)).finish()
    return run.result("last")["value"]


A_B = [sets("task-1", values={"x": 1}), sets("b", "task-1", values={"x": 2})]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("trigger.n", 5),
        ("input.n", 5),
        ('steps."task-1".output.x', 1),
        ("steps.task_1.output.x", 1),
        ("steps.b.status", "complete"),
        ("steps.b.attempts", 1),
        ("steps.b.startedAt", "2026-01-01T00:00:00.000Z"),
        ("steps.b.error", None),
        ("steps.b.nothing", None),
        ("steps.last", None),
        ("steps.unknown.output", None),
        ("keys(steps)", ["task-1", "b"]),
        ("steps.*.output | [*].x", [1, 2]),
        ("step", {"0": {"x": 1}, "1": {"x": 2}}),
        ('step."1".x', 2),
        ("previous.x", 2),
        ("length(previousStepResults)", 2),
        ("previousStepResults[*].actionId", ["task-1", "b"]),
        ("previousStepResults[-1].[status, output.x]", ["success", 2]),
        ("vars.x", 2),
        ("workflow.name", "test"),
        ("workflow.version", 3),
        ("execution", {"id": "i-1", "startedAt": "2026-01-01T00:00:00.000Z", "triggeredBy": "user-7",
                       "schedule": None}),
        ("context.userId", "user-7"),
        ("context.workspaceId", str(WORKSPACE)),
        ("n", None),
        ("result", None),
        ("item", None),
        ("sort(keys(@))", ["context", "execution", "previous", "previousStepResults", "steps", "trigger", "vars",
                           "workflow"]),
    ],
)  # fmt: skip
async def test_names(expression, value):
    assert await seen(expression, A_B, input={"n": 5}) == value


async def test_conditions_index_finished_steps():
    nodes = [*A_B, noop("c", "b", when={"field": "step.0.x", "operator": "eq", "value": 1}),
             noop("d", "b", when={"field": "step.7.x", "operator": "exists"})]  # fmt: skip
    run = await drive(nodes)
    assert run.skipped() == {"d": "condition"}


async def test_skipped_and_failed_steps_are_finished_steps():
    nodes = [noop("a", when="`false`"), fails("b", "a", on_error="continue")]
    assert await seen("previousStepResults[*].[actionId, status, error]", nodes) == [
        ["a", "skipped", None],
        ["b", "failed", "b broke"],
    ]
    assert await seen("[steps.a.status, steps.b.status]", nodes) == ["skipped", "failed"]


async def test_triggers_are_no_finished_steps():
    nodes = [{"id": "t", "type": "trigger"}]
    assert await seen("previousStepResults", nodes, input=1) == []
    assert await seen("steps.t.output", nodes, input=1) == 1


async def test_previous_is_the_single_dependency_or_what_finished_last():
    nodes = [sets("a", values={"x": "a"}), wait("slow", config={"durationMs": 5}), sets("b", "slow", values={"x": "b"})]
    run = await drive([*nodes, sets("one", "a", values={"x": "{{ previous.x }}"}),
                       sets("two", "a", "b", values={"x": "{{ previous.x }}"})])  # fmt: skip
    await run.finish()
    assert run.result("one") == {"x": "a"}
    assert run.result("two") == {"x": "b"}


async def test_an_ambiguous_underscore_spelling_names_nobody():
    nodes = [sets("a-b_c", values={"x": 1}), sets("a_b-c", values={"x": 2})]
    assert await seen("steps.a_b_c", nodes) is None
    nodes = [sets("a-b", values={"x": 1}), sets("a_b", values={"x": 2})]
    assert await seen("steps.a_b.output.x", nodes) == 2


async def test_input_keys_at_the_root_for_documents_of_dialect_001():
    source = {"dialect": "001", "original": {}}
    given = {"email": {"body": "hi"}, "vars": "hidden"}
    assert await seen("email.body", input=given, source=source) == "hi"
    assert await seen("vars", input=given, source=source) == {}
    assert "email" in await seen("keys(@)", input=given, source=source)
    assert await seen("email.body", input=given) is None
    assert await seen("email", input=[1], source=source) is None


async def test_a_scheduled_run_knows_its_schedule():
    trigger = {"source": "cron", "scheduledTime": 1_767_225_600_000, "cron": "0 0 * * *"}
    run = run_context(trigger=trigger)
    assert await seen("execution.schedule", run=run) == {"scheduledTime": 1_767_225_600_000, "cron": "0 0 * * *"}
    run = run_context(trigger={"source": "cron", "scheduledTime": 5})
    assert await seen("execution.schedule", run=run) == {"scheduledTime": 5, "cron": None}


async def test_no_input_is_null():
    assert await seen("trigger", run=run_context(None)) is None


async def test_decoded_outputs_are_forgotten_when_they_take_too_much_room(monkeypatch):
    monkeypatch.setattr(scope_module, "CACHE_CHARACTERS", 100)
    nodes = [sets(f"n{i}", values={"x": "y" * 60, "i": i}) for i in range(3)]
    assert await seen("steps.*.output | [*].i", nodes) == [0, 1, 2]
    assert await seen("previousStepResults[*].output.i", nodes) == [0, 1, 2]


async def test_reading_too_much_is_an_expression_error(monkeypatch):
    monkeypatch.setattr("versions.expressions.values.MAX_DECODED", 1000)
    nodes = [sets(f"n{i}", values={"x": "y" * 400}) for i in range(3)]
    many = [*nodes, sets("last", *(n["id"] for n in nodes), values={"v": "{{ length(to_string(steps)) }}"})]
    run = await drive(many)
    assert run.error.name == "EXPRESSION_ERROR"
    one = [*nodes, sets("last", "n0", values={"a": "{{ steps.n0.output.x }}", "b": "{{ steps.n0.output.x }}"})]
    assert (await drive(one)).output is not None


async def test_a_turn_with_costly_expressions_lets_others_run():
    """The loop is given back between nodes."""
    import asyncio

    bomb = "|".join(["[@,@][]"] * 12) + " | length(@) > `0`"
    nodes = [noop(f"n{i}", when=f"trigger | {bomb}") for i in range(40)]
    run = Driver(compiled(nodes), run=run_context("[1,2,3,4]"))
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await run.session.turn([Started(run.now)])
    ticking.cancel()
    assert ticks > 3
