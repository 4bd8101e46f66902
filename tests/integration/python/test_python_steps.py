"""The step API of Python workflows, in a real sandbox."""

from __future__ import annotations

import pytest

from tests.integration.python.conftest import Loads, Runs
from tests.support.python_scripts import IMPLICIT, START, flow

CHAIN = """
@step.do("first step")
async def first(ctx):
    return [ctx["attempt"], ctx["step"], ctx["config"]["retries"]["limit"]]

@step.do()
def second():
    return "plain function"

return [await first(), await second()]
"""


async def test_steps_run_when_they_are_called(run: Runs) -> None:
    found = await run(CHAIN)
    assert found.output == [[1, {"name": "first step", "count": 1}, 5], "plain function"]
    assert [(said["id"], said["name"]) for said in found.ops("step")] == [(1, "first step"), (2, "second")]
    assert found.ops("step")[0]["config"] == {
        "retries": {"limit": 5, "delay": 10_000, "backoff": "exponential"},
        "timeout": "10 minutes",
    }


async def test_what_is_only_declared_does_not_run(run: Runs) -> None:
    found = await run("step.do('never')(lambda: 1)\nreturn 1")
    assert found.ops("step") == []


async def test_dependencies_by_name_run_once(run: Runs) -> None:
    found = await run(
        """
        @step.do()
        async def a(): return 1

        @step.do()
        async def b(a): return a + 1

        @step.do("sum", concurrent=True)
        async def total(a, b, ctx): return a + b + ctx["attempt"]

        return [await total(), await b()]
        """
    )
    assert found.output == [4, 2]
    assert [said["name"] for said in found.ops("step")] == ["a", "b", "sum", "b"]


async def test_concurrent_dependencies_are_called_side_by_side(run: Runs) -> None:
    found = await run(
        """
        @step.do()
        async def a(): return 1
        @step.do()
        async def b(): return 2
        @step.do(concurrent=True)
        async def both(a, b): return [a, b]
        return await both()
        """,
        held=frozenset({"a", "b"}),
    )
    assert [said["name"] for said in found.ops("step")] == ["a", "b"]
    await found.settle(found.id("b"), v=20)
    await found.settle(found.id("a"), v=10)
    await found.go_on()
    assert found.output == [10, 20]


async def test_a_dependency_in_flight_is_awaited(run: Runs) -> None:
    found = await run(
        """
        @step.do()
        async def a(): return 1
        @step.do()
        async def b(a): return a
        return await asyncio.gather(a(), b(), b())
        """
    )
    assert found.output == [1, 1, 1]
    assert [said["name"] for said in found.ops("step")] == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("code", "flags", "message"),
    [
        ("@step.do()\ndef a(nobody): pass", (IMPLICIT,), "Received unexpected parameter nobody"),
        (
            "step.do('a', ['b'])",
            (IMPLICIT,),
            "WorkflowStep.do() takes from 1 to 2 positional arguments but 3 were given",
        ),
        ("@step.do\ndef a(): pass", (IMPLICIT,), "step.do makes a decorator: write @step.do() or @step.do(name)"),
        ("step.do()", (), "WorkflowStep.do() missing 1 required positional argument: 'name'"),
        ("@step.do('a')\ndef a(b): pass", (), "Step 'a' has parameters but no depends"),
        ("@step.do('a', depends=[1])\ndef a(b): pass", (), "Step 'a' depends on something that is not a step"),
        (
            "@step.do('a')\ndef a(): pass\n@step.do('b', [a, a])\ndef b(a): pass",
            (),
            "Step 'b' takes 1 parameters but depends on 2 steps",
        ),
    ],
)
async def test_wrong_declarations_are_type_errors(run: Runs, code: str, flags: tuple[str, ...], message: str) -> None:
    assert (await run(code, flags=flags)).error == ("TypeError", message)


async def test_legacy_dependencies_are_passed_in_order(run: Runs) -> None:
    found = await run(
        """
        @step.do("one")
        async def first(): return 1
        @step.do("two", None, False, {"timeout": 5})
        async def second(): return 2
        @step.do("three", depends=[second, first])
        async def third(x, y, ctx): return [x, y, ctx["attempt"]]
        return await third()
        """,
        flags=(),
    )
    assert found.output == [2, 1, 1]
    assert [said["name"] for said in found.ops("step")] == ["two", "one", "three"]


async def test_configurations_are_merged_with_the_defaults(run: Runs) -> None:
    found = await run(
        """
        @step.do(config={"retries": {"limit": float("inf"), "delay": "1 second"}, "timeout": 7, "sensitive": "output"})
        def a(): pass
        @step.do(config={"retries": {"limit": 0, "delay": lambda about: 5, "backoff": "linear"}})
        def b(): pass
        await a()
        await b()
        """
    )
    a, b = found.ops("step")
    retries = {"limit": None, "delay": "1 second", "backoff": "exponential"}
    assert a["config"] == {"retries": retries, "timeout": 7, "sensitive": "output"}
    assert b["config"]["retries"] == {"limit": 0, "delay": "[dynamic]", "backoff": "linear"}
    assert b["dynamic"]
    assert "v" not in found.ops("attempt_ok")[0]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("[]", "it must be a dict"),
        ("{'retry': 1}", "only retries, timeout, sensitive are known, not retry"),
        ("{'retries': {'limit': 1}}", "retries.delay is required"),
        ("{'retries': {'delay': 1}}", "retries.limit must be a number of 0 or more"),
        ("{'retries': {'limit': True, 'delay': 1}}", "retries.limit must be a number of 0 or more"),
        ("{'retries': {'limit': 10001, 'delay': 1}}", "retries.limit must not exceed 10000"),
        ("{'retries': {'limit': 1, 'delay': 'soon'}}", "retries.delay must be a duration"),
        (
            "{'retries': {'limit': 1, 'delay': 1, 'backoff': 'x'}}",
            "retries.backoff must be constant, linear or exponential",
        ),
        ("{'timeout': 0}", "timeout must be a duration of more than 0"),
        ("{'sensitive': 'input'}", 'sensitive must be "output"'),
    ],
)
async def test_wrong_configurations_are_fatal(run: Runs, config: str, reason: str) -> None:
    found = await run(f"await step.do('a', config={config})(lambda: 1)()")
    assert found.error == ("WorkflowFatalError", f'Step config for "a" is in a invalid format. {reason}')


@pytest.mark.parametrize("name", ["'x' * 257", "'a\\nb'", "5"])
async def test_wrong_names_are_fatal(run: Runs, name: str) -> None:
    name_error, message = (await run(f"await step.do({name})(lambda: 1)()")).error
    assert name_error == "WorkflowFatalError"
    assert "exceeds max length (256 chars) or invalid characters found" in message


async def test_sleeps_and_waits(run: Runs) -> None:
    found = await run(
        """
        await step.sleep("a", "2 seconds")
        await step.sleep("a", 5.7)
        await step.sleep_until("b", datetime.datetime(2023, 11, 15, tzinfo=datetime.UTC))
        await step.sleep_until("c", 1700006500000)
        got = await step.wait_for_event("go", "approve", timeout="1 hour")
        await step.wait_for_event("default", "x")
        return [got["payload"], got["type"], got["timestamp"]]
        """
    )
    assert [(said["name"], said.get("duration"), said.get("until")) for said in found.ops("sleep")] == [
        ("a", 2000, None),
        ("a", 5, None),
        ("b", None, 1_700_006_400_000),
        ("c", None, 1_700_006_500_000),
    ]
    event = {"payload": {"by": "me"}, "type": "approve", "timestamp": "2026-01-02T03:04:05.000Z"}
    await found.settle(found.id("go"), v=event)
    await found.settle(found.id("default"), v=event)
    waits = [(said["name"], said["type"], said["timeout"]) for said in found.ops("wait")]
    assert waits == [("go", "approve", 3_600_000), ("default", "x", 86_400_000)]
    assert found.output == [{"by": "me"}, "approve", {"$t": "d", "v": 1_767_323_045_000}]


@pytest.mark.parametrize(
    ("call", "name", "message"),
    [
        ("step.sleep('n', 'soon')", "WorkflowFatalError", 'Sleep "n" has an invalid duration'),
        ("step.sleep('n', -1)", "WorkflowFatalError", 'Sleep "n" has an invalid duration'),
        ("step.sleep('n', '366 days')", "WorkflowFatalError", 'Sleep "n" has an invalid duration'),
        ("step.sleep_until('n', 'noon')", "WorkflowFatalError", 'Sleep "n" has an invalid timestamp'),
        ("step.sleep_until('n', 1)", "Error", "You can't sleep until a time in the past, time-traveler"),
        ("step.sleep_until('n', 10**14)", "WorkflowFatalError", 'Sleep "n" is longer than 365 days'),
        ("step.wait_for_event('n', 'a b')", "WorkflowError", "(workflow.invalid_event_type)"),
        ("step.wait_for_event('n', 'a', timeout=0)", "WorkflowFatalError", 'Step "n" has an invalid timeout'),
    ],
)
async def test_wrong_sleeps_and_waits(run: Runs, call: str, name: str, message: str) -> None:
    error = (await run(f"await {call}")).error
    assert error[0] == name
    assert error[1].startswith(message)


async def test_nested_steps_name_the_step_they_are_in(run: Runs) -> None:
    found = await run(
        """
        @step.do()
        async def outer():
            @step.do()
            async def inner(): return 5
            return await inner()
        return await outer()
        """
    )
    assert found.output == 5
    assert [said.get("inside") for said in found.ops("step")] == [None, 1]


async def test_no_steps_once_the_run_rolls_back(run: Runs) -> None:
    found = await run("await step.wait_for_event('w', 'go')\nawait step.sleep('s', 1)")
    await found.tell({"op": "rollback", "r": 1})
    await found.settle(1, v={"payload": None, "type": "go", "timestamp": 0})
    assert found.error == ("WorkflowFatalError", "Cannot execute steps during rollback phase")


async def test_errors_of_steps_keep_what_they_are(run: Runs) -> None:
    found = await run(
        """
        class Odd(Exception): pass
        seen = []
        async def attempt(error):
            @step.do("s", config={"retries": {"limit": 1, "delay": 0}})
            def s(): raise error
            try: await s()
            except Exception as caught: seen.append([type(caught).__name__, str(caught), getattr(caught, "name", None)])
        undecodable = UnicodeDecodeError("a", b"", 0, 1, "r")
        for error in (ValueError("v"), KeyError("k"), Odd("o"), NonRetryableError("n"), undecodable):
            await attempt(error)
        return seen
        """
    )
    assert found.output == [
        ["ValueError", "v", None],
        ["KeyError", "\"'k'\"", None],
        ["Exception", "o", "Odd"],
        ["NonRetryableError", "n", None],
        ["Exception", "'a' codec can't decode bytes in position 0-0: r", "UnicodeDecodeError"],
    ]
    failures = found.ops("attempt_failed")
    assert [failure["error"]["name"] for failure in failures[::2]][:2] == ["ValueError", "KeyError"]
    assert next(failure for failure in failures if failure["error"].get("permanent"))["error"]["message"] == "n"
    assert 'File "/session/metadata/entry.py"' in failures[0]["error"]["stack"]
    assert "child" not in failures[0]["error"]["stack"]


async def test_tracebacks_do_not_say_where_python_is(run: Runs) -> None:
    found = await run("import json\njson.loads('{')")
    assert found.error[0] == "Error"
    assert found.error[1].startswith("JSONDecodeError: Expecting property name")
    assert 'File "python/json/decoder.py"' in found.ops("throw")[0]["error"]["stack"]


async def test_errors_that_leave_run(run: Runs) -> None:
    assert (await run("raise ValueError('v')")).error == ("ValueError", "v")
    assert (await run("raise Exception('plain')")).error == ("Error", "plain")
    assert (await run("class Odd(Exception): pass\nraise Odd('o')")).error == ("Error", "Odd: o")
    assert (await run("raise NonRetryableError('n')")).error == ("NonRetryableError", "n")
    assert (await run("raise SystemExit(3)")).error == ("Error", "SystemExit: 3")
    assert (await run("return await step.sleep('a', 'x' * 99)")).error[0] == "WorkflowFatalError"


async def test_a_caught_platform_error_raised_again_is_still_itself(run: Runs) -> None:
    found = await run("await step.wait_for_event('w', 'go')", held=frozenset())
    await found.settle(1, error={"name": "WorkflowTimeoutError", "message": "Execution timed out after 5ms"})
    assert found.error == ("WorkflowTimeoutError", "Execution timed out after 5ms")


async def test_what_cannot_be_stored_ends_the_run(run: Runs) -> None:
    found = await run("@step.do()\ndef a(): return object()\nawait a()", held=frozenset({"a"}))
    await found.attempt(1)
    [failed] = found.ops("attempt_failed")
    assert failed["fatal"] == "unserialisable"
    assert failed["error"]["message"] == "a value of type object cannot be stored"
    found = await run("return print")
    assert found.error[0] == "WorkflowFatalError"
    assert found.ops("throw")[0]["fatal"] == "unserialisable"


async def test_an_abandoned_attempt_is_cancelled_and_says_no_more(run: Runs) -> None:
    found = await run(
        """
        @step.do()
        async def slow():
            try: await fetch("https://example.com")
            finally: print("gone")
        return await slow()
        """
    )
    assert found.script.state["1"] == [1, 0, 1]
    await found.tell({"op": "abandon", "r": 1, "id": 1, "attempt": 1})
    assert found.ops("attempt_failed", "attempt_ok") == []
    assert found.logs == [("info", "gone", 1)]
    assert found.script.state["1"][0] == 0


async def test_delay_functions(run: Runs) -> None:
    found = await run(
        """
        def delay(about): return f"{about['ctx']['attempt'] + 2} seconds" if str(about["error"]) == "e" else None
        @step.do(config={"retries": {"limit": 3, "delay": delay}})
        def a(): raise ValueError("e")
        await a()
        """,
        held=frozenset({"a"}),
    )
    found.attempts[1] = 5
    await found.attempt(1)
    about = {"op": "delay", "r": 1, "id": 1, "attempt": 1, "now": START}
    await found.tell(about | {"error": {"name": "ValueError", "message": "e"}})
    assert found.ops("delay_ok")[0]["delay"] == 8000
    await found.tell(about | {"error": {"name": "Error", "message": "?"}})
    assert found.ops("delay_ok")[1]["delay"] == "invalid"


async def test_many_runs_share_a_process_and_leave_nothing(load: Loads) -> None:
    counted = "[tasks.count(), await step.do('x')(lambda: event['payload'])()]"
    source = flow(f"await step.sleep('s', 1)\nimport tasks\nreturn {counted}")
    counting = "import asyncio\ndef count(): return len(asyncio.all_tasks())\n"
    script = await load({"entry.py": source, "tasks.py": counting})
    for number in range(100):
        found = await script.run(number)
        assert found.output == [1, number]
        assert await script.tell({"op": "drop", "r": found.number}) == []
    waiting = await script.run(0, held=frozenset({"s"}))
    assert await script.tell({"op": "drop", "r": waiting.number}) == []
    assert (await script.run(7)).output == [1, 7]
